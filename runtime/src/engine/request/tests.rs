use super::*;

#[test]
fn what_is_nearer_wins() {
    let line = SamplingOverrides { temperature: Some(0.5), ..SamplingOverrides::default() };
    let flags = SamplingOverrides { temperature: Some(1.5), top_k: Some(7), ..SamplingOverrides::default() };
    let model = SamplerConfig { top_k: 64, top_p: 0.95, seed: 3, ..SamplerConfig::default() };
    let got = line.or(flags).resolve(model);
    assert_eq!(got, SamplerConfig { temperature: 0.5, top_k: 7, top_p: 0.95, seed: 3, ..SamplerConfig::default() });
    let request = Request { stop: Some(Vec::new()), ..Request::text("a") };
    let defaults = Request {
        system: Some("s".into()),
        stop: Some(vec!["x".into()]),
        max_new_tokens: Some(9),
        adapter: AdapterChoice::Named("robot".into()),
        tenant: 5,
        n_drawn: 5,
        ..Request::text("b")
    };
    let got = request.with_defaults(&defaults);
    assert_eq!((got.prompt, got.tenant, got.n_drawn), (Prompt::Text("a".into()), 0, 0));
    // An empty list of stop strings is one.
    assert_eq!((got.stop, got.system.as_deref(), got.max_new_tokens), (Some(Vec::new()), Some("s"), Some(9)));
    assert_eq!(got.adapter, AdapterChoice::Named("robot".into()));
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    type Change = fn(&mut Request);
    let cases: [(Change, &str); 6] = [
        (|r| r.sampling.temperature = Some(f32::NAN), "temperature is NaN; 0 to 5"),
        (|r| r.sampling.top_p = Some(1.5), "top_p is 1.5; 0 to 1"),
        (|r| r.sampling.repeat_penalty = Some(0.0), "repeat_penalty is 0; 0.1 to 10"),
        (|r| r.stop = Some(vec![String::new()]), "stop is 0 bytes long; 1 to 1024"),
        (|r| r.logprobs = Some(21), "logprobs is 21; 0 to 20"),
        (|r| r.stop_tokens = vec![1; 1025], "stop_tokens has 1025 tokens; at most 1024"),
    ];
    for (change, want) in cases {
        let mut request = Request::text("a");
        change(&mut request);
        assert_eq!(request.check().unwrap_err().message(), want);
    }
    assert!(Request::text("a").check().is_ok());
}
