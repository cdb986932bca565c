//! Flags and job files: what is wrong is said in one sentence, what is right means the same in both.

use std::fs;

use lichen_tests::models::fixture;

use crate::support::{flags, run, text, TempDir, Trained, MODELS};

const SUBCOMMANDS: [&str; 6] = ["lora", "full", "plan", "bench", "report", "rollback"];

#[test]
fn help_ends_with_an_example() {
    for name in SUBCOMMANDS {
        let help = run(&[name, "--help"]).ok().stdout;
        let example = help.split("Example").nth(1).unwrap_or_else(|| panic!("{name}: {help}"));
        assert!(example.contains(&format!("lichen-train {name}")), "{name}: {help}");
    }
    let top = run(&["--help"]).ok().stdout;
    assert!(SUBCOMMANDS.iter().all(|name| top.contains(&format!("\n  {name} "))), "{top}");
    assert_eq!(run(&["--version"]).stdout, format!("lichen-train {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(run::<&str>(&[]).code, Some(2));
}

/// Flags behind a job that would run, the exit code, and the one sentence. `{out}` and `{model}` stand for paths.
struct Case(&'static str, i32, &'static str);

const CASES: [Case; 54] = [
    Case("--rank 0", 2, "--rank is 0; 1 to 1024"),
    Case("--rank 1025", 2, "--rank is 1025; 1 to 1024"),
    Case("--rank 1.5", 2, "--rank is 1.5; 1 to 1024"),
    Case("--alpha nan", 2, "--alpha is nan; 0.001 to 1000000"),
    Case("--alpha 0", 2, "--alpha is 0; 0.001 to 1000000"),
    Case("--targets qq_proj", 2, "--targets is qq_proj; all, or some of q,k,v,o,gate,up,down separated by commas"),
    Case("--targets=", 2, "--targets is \"\"; all, or some of q,k,v,o,gate,up,down separated by commas"),
    Case("--dropout 1", 2, "--dropout is 1; 0 to 0.95"),
    Case("--dropout NaN", 2, "--dropout is NaN; 0 to 0.95"),
    Case("--learning-rate 0", 2, "--learning-rate is 0; 0.000000000001 to 10"),
    Case("--learning-rate inf", 2, "--learning-rate is inf; 0.000000000001 to 10"),
    Case("--max-seq 1", 2, "--max-seq is 1; 2 to 1048576"),
    Case("--max-seq 513", 2, "--max-seq is 513; 2 to 512 for this model"),
    Case("--truncation keep", 2, "--truncation is keep; cut or drop"),
    Case("--micro-batch-size 0", 2, "--micro-batch-size is 0; 1 to 4096"),
    Case("--gradient-accumulation-steps 65537", 2, "--gradient-accumulation-steps is 65537; 1 to 65536"),
    Case("--epochs 0", 2, "--epochs is 0; 1 to 1048576"),
    Case("--max-steps 0", 2, "--max-steps is 0; 1 to 1099511627776"),
    Case("--max-steps 9223372036854775808", 2, "--max-steps is 9223372036854775808; 1 to 1099511627776"),
    Case("--schedule step", 2, "--schedule is step; cosine, linear or constant"),
    Case("--warmup=-1", 2, "--warmup is -1; 0 to 1000000000"),
    Case("--min-lr-ratio 1.1", 2, "--min-lr-ratio is 1.1; 0 to 1"),
    Case("--weight-decay 11", 2, "--weight-decay is 11; 0 to 10"),
    Case("--max-grad-norm nan", 2, "--max-grad-norm is nan; 0 to 1000000000"),
    Case("--optimizer sgd", 2, "--optimizer is sgd; adamw"),
    Case("--adam-beta1 1", 2, "--adam-beta1 is 1; 0 to 0.999999"),
    Case("--adam-eps 0", 2, "--adam-eps is 0; 0.000000000000000000000000000001 to 1"),
    Case("--checkpoint-activations yes", 2, "--checkpoint-activations is yes; auto, on or off"),
    Case("--eval-split 1", 2, "--eval-split is 1; 0 to 0.9"),
    Case("--eval-every 0", 2, "--eval-every is 0; 1 to 1099511627776"),
    Case("--save-every 0", 2, "--save-every is 0; 1 to 1099511627776"),
    Case("--save-total-limit 0", 2, "--save-total-limit is 0; 1 to 1000"),
    Case("--seed=-1", 2, "--seed is -1; 0 to 18446744073709551615"),
    Case("--threads 0", 2, "--threads is 0; 1 to 1024"),
    Case("--power-budget 5", 2, "--power-budget is 5; a power such as 5W or 5000mW, 100 mW to 1000 W"),
    Case("--max-board-temp-c 20", 2, "--max-board-temp-c is 20; 40 to 110"),
    Case("--max-board-temp-c 110.5", 2, "--max-board-temp-c is 110.5; 40 to 110"),
    Case("--device cuda:x", 2, "--device is cuda:x; auto, cpu, cuda or cuda:N"),
    Case("--device gpu", 2, "--device is gpu; auto, cpu, cuda or cuda:N"),
    Case("--rankk 8", 2, "unknown flag --rankk (did you mean --rank?)"),
    Case("--weights bf16", 2, "unknown flag --weights (did you mean --weight-decay?)"),
    Case("--resume --restart", 2, "--resume cannot be used with --restart"),
    // Earlier names, and short ones.
    Case("--over-long keep", 2, "--truncation is keep; cut or drop"),
    Case("--batch 0", 2, "--micro-batch-size is 0; 1 to 4096"),
    Case("--accumulate 65537", 2, "--gradient-accumulation-steps is 65537; 1 to 65536"),
    Case("--final-rate 1.1", 2, "--min-lr-ratio is 1.1; 0 to 1"),
    Case("--clip nan", 2, "--max-grad-norm is nan; 0 to 1000000000"),
    Case("--keep 0", 2, "--save-total-limit is 0; 1 to 1000"),
    Case("--stop-temp 20", 2, "--max-board-temp-c is 20; 40 to 110"),
    Case("--canary {out}", 1, "{out}: No such file or directory (os error 2)"),
    Case("--init-adapter {out}", 1, "{out}: No such file or directory (os error 2)"),
    Case("--regression-prompts {out}", 1, "{out}: No such file or directory (os error 2)"),
    Case("--data {out}", 1, "{out}: No such file or directory (os error 2)"),
    Case("--model {out}", 1, "{out}: No such file or directory (os error 2)"),
];

#[test]
fn wrong_flags_are_refused_in_one_sentence() {
    let folder = TempDir::new("usage");
    let out = folder.path("run");
    for Case(more, code, said) in &CASES {
        let put = |text: &str| text.replace("{out}", &folder.file("nothing"));
        let more: Vec<String> = more.split(' ').map(put).collect();
        let ended = run(&[flags(MODELS[0], &out, 2), more.clone()].concat());
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(*code), format!("error: {}\n", put(said)).as_str()),
            "{more:?}"
        );
        assert!(!out.exists() && ended.stdout.is_empty(), "{more:?}: {ended:?}");
    }
}

#[test]
fn what_is_missing_or_does_not_go_together_is_said() {
    let folder = TempDir::new("missing");
    let (model, out) = (fixture("tiny-gemma3"), folder.file("run"));
    let (model, gguf) = (model.to_str().expect("UTF-8"), model.join("tiny-gemma3-q8_0.gguf"));
    let data = fixture("training/tiny-gemma3/rows.jsonl");
    let (data, gguf) = (data.to_str().expect("UTF-8"), gguf.to_str().expect("UTF-8"));
    let needs_floats = "--model: full training starts from a Hugging Face folder with float weights, and writes one";
    let cases: [(&[&str], i32, &str); 8] = [
        (&["lora", "--model", model, "--out", &out], 2, "--data is missing; --help shows an example"),
        (&["lora", "--model", model, "--data", data], 2, "--out is missing; --help shows an example"),
        (&["lora"], 2, "--data is missing; --help shows an example"),
        (&["full", "--model", model, "--out", &out], 2, "--data is missing; --help shows an example"),
        (&["full", "--model", gguf, "--data", data, "--out", &out], 2, needs_floats),
        (&["full", "--data", data, "--out", &out], 2, needs_floats),
        (
            &["full", "--model", model, "--data", data, "--out", &out, "--weights", "q8_0"],
            2,
            "--weights is q8_0; f32 or bf16",
        ),
        (&["lore"], 2, "unknown subcommand lore (did you mean lora?); --help lists them"),
    ];
    for (arguments, code, said) in cases {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.error()), (Some(code), said), "{arguments:?}");
        assert!(!folder.path("run").exists(), "{arguments:?}");
    }
}

/// A job file and what is said of it; `{job}` is its path.
const JOB_FILES: [(&str, i32, &str); 11] = [
    ("rank = 8\nranke = 8\n", 1, "{job}: line 2: unknown key \"ranke\" (did you mean \"rank\"?)"),
    ("rank = {a = 1}\n", 1, "{job}: line 1: \"rank\" must be a number, a string, true, false or a list"),
    ("[lora]\nrank = 8\n", 1, "{job}: line 1: unknown key \"lora\""),
    ("weights = \"bf16\"\n", 1, "{job}: line 1: unknown key \"weights\""),
    ("rank = 0\n", 2, "{job}: line 1: rank is 0; 1 to 1024"),
    ("learning_rate = nan\n", 2, "{job}: line 1: learning_rate is nan; 0.000000000001 to 10"),
    (
        "targets = [\"q\", \"x\"]\n",
        2,
        "{job}: line 1: targets is \"q,x\"; all, or some of q,k,v,o,gate,up,down separated by commas",
    ),
    ("resume = true\nrestart = true\n", 2, "--resume cannot be used with --restart"),
    ("method = \"full\"\n", 2, "{job}: method is full, and this is lora training"),
    ("clip = -1\n", 2, "{job}: line 1: clip is -1; 0 to 1000000000"),
    ("model = \"{job}\"\n", 1, "{job}: not a GGUF file (starts with 6d 6f 64 65)"),
];

#[test]
fn wrong_job_files_are_refused_in_one_sentence() {
    let folder = TempDir::new("job-files");
    let job = folder.file("job.toml");
    for (contents, code, said) in JOB_FILES {
        fs::write(&job, contents.replace("{job}", &job)).expect("written");
        let ended = run(&["lora", &job, "--out", &folder.file("run"), "--data", &job]);
        let said = said.replace("{job}", &job);
        assert_eq!(ended.code, Some(code), "{contents}: {ended:?}");
        assert!(ended.error().starts_with(&said), "{contents}: {said}: {ended:?}");
    }
    let ended = run(&["lora", &folder.file("none.toml")]);
    assert_eq!(ended.error(), format!("{}: No such file or directory (os error 2)", folder.file("none.toml")));
    for bad in ["rank = \n", "rank = 8\nrank = 9\n", "\u{0}"] {
        fs::write(&job, bad).expect("written");
        let ended = run(&["lora", &job]);
        assert!(ended.code == Some(1) && ended.error().starts_with(&format!("{job}: line ")), "{bad:?}: {ended:?}");
    }
}

/// The same job as a file and as flags; a flag beside the file wins.
#[test]
fn a_job_file_is_flags() {
    let folder = TempDir::new("job");
    let (typed, from_file) = (folder.path("typed"), folder.path("file"));
    let arguments = flags(MODELS[1], &typed, 6);
    run(&arguments).ok();
    let mut toml = String::from("# The same, with the wrong number of steps and a flag that is off.\nstrict = false\n");
    for pair in arguments[1..].chunks_exact(2).filter(|pair| pair[0] != "--out") {
        let (key, value) = (pair[0].trim_start_matches("--").replace('-', "_"), &pair[1]);
        let value = if pair[0] == "--max-steps" { "7" } else { value };
        match value.parse::<f64>() {
            Ok(_) => toml += &format!("{key} = {value}\n"),
            Err(_) => toml += &format!("{key} = \"{value}\"\n"),
        }
    }
    fs::write(folder.path("job.toml"), toml).expect("written");
    let out = from_file.to_str().expect("UTF-8");
    run(&["lora", &folder.file("job.toml"), "--out", out, "--max-steps", "6"]).ok();
    Trained::read(&from_file, 6).assert_equals(&Trained::read(&typed, 6), "from a file");
    // As it stands, the file asks for another number of steps.
    let ended = run(&["lora", &folder.file("job.toml"), "--out", out, "--resume"]);
    assert!(ended.error().contains("the run was started with --max-steps 6, and now it is 7"), "{ended:?}");
}

/// A file in the words of an earlier version means the same, and says what they are now.
#[test]
fn earlier_names_are_read_and_named() {
    let folder = TempDir::new("earlier-names");
    let (now, before) = (folder.path("now"), folder.path("before"));
    let more = "--max-grad-norm 0.5 --min-lr-ratio 0.25 --truncation drop --save-total-limit 2 --micro-batch-size 2";
    run(&[flags(MODELS[1], &now, 6), more.split(' ').map(str::to_string).collect()].concat()).ok();
    let old = "clip = 0.5\nfinal_rate = 0.25\nover_long = \"drop\"\nkeep = 2\nbatch = 2\n";
    fs::write(folder.path("job.toml"), old).expect("written");
    let mut arguments = flags(MODELS[1], &before, 6);
    arguments.insert(1, folder.file("job.toml"));
    let ended = run(&arguments).ok();
    let names = [
        ("clip", "max_grad_norm"),
        ("final_rate", "min_lr_ratio"),
        ("over_long", "truncation"),
        ("keep", "save_total_limit"),
        ("batch", "micro_batch_size"),
    ];
    for (i, (was, is)) in names.iter().enumerate() {
        let said = format!("{}: line {}: \"{was}\" is called \"{is}\" now", folder.file("job.toml"), i + 1);
        assert!(ended.stderr.lines().any(|l| l == said), "{said}: {ended:?}");
    }
    Trained::read(&before, 6).assert_equals(&Trained::read(&now, 6), "in earlier words");
}

/// A plan is that of the job of its file, takes what memory depends on, and nothing else.
#[test]
fn a_plan_is_of_its_job() {
    let folder = TempDir::new("plan");
    let model = fixture(MODELS[1]);
    let model = model.to_str().expect("UTF-8");
    let file = format!(
        "model = \"{model}\"\nrank = 32\ntargets = \"q,v\"\nbatch = 3\nmax_seq = 100\ndropout = 0.1\nthreads = 2\n\
         device = \"cpu\"\ndata = \"rows.jsonl\"\nlearning_rate = 1e-3\n"
    );
    let job = folder.file("job.toml");
    fs::write(&job, file).expect("written");
    let items = |arguments: &[&str]| run(&[&["plan", "--json"], arguments].concat()).ok().json();
    let without_what_is_left = |mut plan: serde_json::Value| {
        plan.as_object_mut().expect("an object").remove("available_bytes");
        plan
    };
    let typed = "--rank 32 --targets q,v --micro-batch-size 3 --max-seq 100 --dropout 0.1 --threads 2 --device cpu";
    let typed: Vec<&str> = ["--model", model].into_iter().chain(typed.split(' ')).collect();
    assert_eq!(without_what_is_left(items(&[&job])), without_what_is_left(items(&typed)));
    assert_ne!(items(&[&job])["total_bytes"], items(&["--model", model, "--device", "cpu"])["total_bytes"]);
    // What is typed wins.
    assert_eq!(items(&[&job, "--max-seq", "50"])["max_seq"], 50);
    // Of full training, by the file or by the flag.
    fs::write(&job, format!("model = \"{model}\"\nmethod = \"full\"\nweights = \"bf16\"\n")).expect("written");
    let full = ["--model", model, "--full", "--weights", "bf16"];
    assert_eq!(without_what_is_left(items(&[&job])), without_what_is_left(items(&full)));
    let refused = [
        (vec!["--data", "rows.jsonl"], "unknown flag --data"),
        (vec!["--learning-rate", "1"], "unknown flag --learning-rate"),
        (vec!["--alpha", "1"], "unknown flag --alpha"),
        (vec!["--save-every", "1"], "unknown flag --save-every"),
        (vec!["--weights", "bf16"], "--weights is not of lora training; leave it out"),
        (vec!["--full", "--rank", "8"], "--rank is not of full training; leave it out"),
        (vec!["--format", "q8_0"], "--format is that of --geometry; a model's file has its own"),
    ];
    for (arguments, said) in refused {
        let ended = run(&[&["plan"], &arguments[..]].concat());
        assert!(ended.code == Some(2) && ended.error().starts_with(said), "{arguments:?}: {ended:?}");
    }
    fs::write(&job, "rank = 8\nranke = 8\n").expect("written");
    let ended = run(&["plan", &job]);
    assert_eq!(ended.error(), format!("{job}: line 2: unknown key \"ranke\" (did you mean \"rank\"?)"));
}

/// What `report` makes of a run, finished or killed, and of a folder that is none.
#[test]
fn reports_of_runs() {
    let folder = TempDir::new("report");
    let out = folder.file("run");
    run(&flags(MODELS[1], &folder.path("run"), 6)).ok();
    fs::remove_file(folder.path("run").join("summary.json")).expect("there");
    for _ in 0..2 {
        let json = run(&["report", &out, "--json"]).ok().json();
        assert_eq!(json["steps"], 6, "{json}");
        assert!(text(json["page"].as_str().expect("a path").as_ref()).contains("<svg"), "{json}");
    }
    let ended = run(&["report", &folder.file("none")]);
    assert_eq!(ended.error(), format!("{}/metrics.jsonl: No such file or directory (os error 2)", folder.file("none")));
    assert!(run(&["report", &out]).ok().stdout.contains("6 steps, loss "));
}
