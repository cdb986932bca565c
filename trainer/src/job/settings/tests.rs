use super::*;
use crate::job::Method;

#[test]
fn names_are_unique_and_values_are_read_as_they_are_written() {
    let mut names: Vec<&str> = JOB_SETTINGS.iter().flat_map(|s| s.names()).collect();
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
