use super::*;
use crate::job::Method;

type Change = fn(&mut Job);

/// A job that is complete.
fn whole() -> Job {
    Job { data: Some("rows.jsonl".into()), out: Some("run".into()), ..Job::default() }
}

#[test]
fn a_job_that_was_filled_by_hand_is_checked_as_one_of_a_file() {
    assert_eq!(whole().validate(), Ok(()));
    assert_eq!(Job { memory: Job::of(Method::Full).memory, ..whole() }.validate(), Ok(()));
    let cases: [(Change, &str); 14] = [
        (|job| job.memory.rank = 0, "rank is 0; 1 to 1024"),
        (|job| job.alpha = f32::NAN, "alpha is NaN; 0.001 to 1000000"),
        (|job| job.memory.dropout = 1.0, "dropout is 1.0; 0 to 0.95"),
        (
            |job| job.memory.targets = [false; 7],
            "targets is \"\"; all, or some of q,k,v,o,gate,up,down separated by commas",
        ),
        (|job| job.learning_rate = Some(f64::INFINITY), "learning_rate is inf; 0.000000000001 to 10"),
        (|job| job.memory.max_seq = 1, "max_seq is 1; 2 to 1048576"),
        (|job| job.memory.micro_batch_size = 0, "micro_batch_size is 0; 1 to 4096"),
        (|job| job.max_steps = Some(0), "max_steps is 0; 1 to 1099511627776"),
        (|job| job.max_grad_norm = -1.0, "max_grad_norm is -1.0; 0 to 1000000000"),
        (|job| job.eval_split = f64::NAN, "eval_split is NaN; 0 to 0.9"),
        (|job| job.max_board_temp_c = Some(39.0), "max_board_temp_c is 39.0; 40 to 110"),
        (|job| job.power_budget_mw = Some(0), "power_budget is 0mW; a power such as 5W or 5000mW, 100 mW to 1000 W"),
        (|job| (job.resume, job.restart) = (true, true), "resume cannot be used with restart"),
        (|job| job.data = None, "data is missing"),
    ];
    for (change, want) in cases {
        let mut job = whole();
        change(&mut job);
        assert_eq!(job.validate().unwrap_err().message(), want);
    }
    // An adapter's settings are nothing to full training.
    let mut full = Job { memory: Job::of(Method::Full).memory, ..whole() };
    (full.memory.rank, full.alpha) = (0, f32::NAN);
    assert_eq!(full.validate(), Ok(()));
}

#[test]
fn names_are_unique_and_values_are_read_as_they_are_written() {
    let mut names: Vec<&str> = JOB_SETTINGS.iter().flat_map(JobSetting::names).collect();
    let n = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n);
    for method in [Method::Lora, Method::Full] {
        let job = Job::of(method);
        for s in JOB_SETTINGS.iter() {
            let Some(value) = s.get(&job) else { continue };
            let mut again = job.clone();
            s.set(&mut again, &value).unwrap_or_else(|e| panic!("{}: {value}: {e}", s.setting.name()));
            assert_eq!(s.get(&again), Some(value));
        }
    }
}
