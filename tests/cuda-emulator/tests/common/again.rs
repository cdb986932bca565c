//! A test again in a process of its own: the emulator reads its environment once.

use std::env;
use std::process::Command;

/// Runs this test again in a process with `variables`; true in that process.
pub fn with_environment(test: &str, variables: &[(&str, &str)]) -> bool {
    if env::var("LICHEN_TEST_AGAIN").is_ok_and(|name| name == test) {
        return true;
    }
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]).env("LICHEN_TEST_AGAIN", test);
    command.envs(variables.iter().copied());
    let output = command.output().expect("this program starts");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    false
}
