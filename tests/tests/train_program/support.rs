use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use lichen_tests::models::fixture;
use lichen_tests::programs::{self, lichen_train};
pub use lichen_tests::programs::{wait_at_most, Run, TempDir};
use lichen_trainer::metrics;

pub const MODELS: [&str; 2] = ["tiny-gemma3", "tiny-qwen2-tied"];

/// Flags of a tiny job: six rows to train on and two held out, dropout, evaluations and checkpoints that do not fall together.
/// `library::job` is the same.
pub fn flags(model: &str, out: &Path, max_steps: u64) -> Vec<String> {
    let path = |p: PathBuf| p.to_str().expect("UTF-8").to_string();
    let data = path(fixture(&format!("training/{model}/rows.jsonl")));
    let (model, out) = (path(fixture(model)), path(out.to_path_buf()));
    let text = format!(
        "lora --model {model} --data {data} --out {out} --max-seq 40 --rank 4 --alpha 8 --dropout 0.1 --eval-split 0.2 \
         --eval-every 5 --accumulate 4 --epochs 100 --max-steps {max_steps} --save-every 3 --learning-rate 2e-3 --device cpu --threads 2"
    );
    text.split_whitespace().map(str::to_string).collect()
}

/// The program with these arguments; nothing of this test's environment reaches it.
pub fn command<S: AsRef<str>>(arguments: &[S]) -> Command {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    programs::command(lichen_train(), &arguments)
}

/// Starts it, with what it prints kept.
pub fn spawn<S: AsRef<str>>(arguments: &[S]) -> Child {
    programs::spawn(&mut command(arguments))
}

/// Runs it to its end.
pub fn run<S: AsRef<str>>(arguments: &[S]) -> Run {
    programs::run(&mut command(arguments))
}

pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a run ends with: the files of a checkpoint by name, and the rows up to it without what was measured.
#[derive(Clone, PartialEq, Eq)]
pub struct Trained {
    pub files: BTreeMap<String, Vec<u8>>,
    pub rows: Vec<String>,
}

impl Trained {
    pub fn new(files: BTreeMap<String, Vec<u8>>, rows: &str) -> Trained {
        let rows = rows.lines().map(metrics::without_time).collect();
        // The manifest names the checkpoint before, and which one that is depends on when it was saved.
        let files = files.into_iter().filter(|(name, _)| name != "MANIFEST").collect();
        Trained { files, rows }
    }

    /// What stands in a run folder after `step`.
    pub fn read(run: &Path, step: u64) -> Trained {
        Trained::new(tree(&run.join(format!("step-{step:08}"))), &text(&run.join("metrics.jsonl")))
    }

    /// Without the line of `state.json` that says who computed.
    pub fn without_device(mut self) -> Trained {
        let state = self.files.get_mut("state.json").expect("a state");
        let text = String::from_utf8(std::mem::take(state)).expect("UTF-8");
        *state = text.lines().filter(|l| !l.starts_with("  \"device\": \"cpu (")).flat_map(str::bytes).collect();
        self
    }

    /// Panics with the first difference.
    pub fn assert_equals(&self, want: &Trained, case: &str) {
        self.assert_files_equal(want, case);
        for (i, (got, wanted)) in self.rows.iter().zip(&want.rows).enumerate() {
            assert_eq!(got, wanted, "{case}: row {}", i + 1);
        }
        assert_eq!(self.rows.len(), want.rows.len(), "{case}: rows");
    }

    /// The same for the files of the checkpoint alone.
    pub fn assert_files_equal(&self, want: &Trained, case: &str) {
        let names = |t: &Trained| t.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(want), "{case}: files");
        for (name, bytes) in &self.files {
            let at = bytes.iter().zip(&want.files[name]).position(|(a, b)| a != b);
            let (got, wanted) = (bytes.len(), want.files[name].len());
            assert!(*bytes == want.files[name], "{case}: {name} of {got} bytes differs at {at:?} from {wanted} bytes");
        }
    }
}

/// The regular files of a folder, by name.
pub fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).map(|e| e.expect("read"));
    let files = entries.filter(|e| e.file_type().expect("a type").is_file());
    files.map(|e| (e.file_name().into_string().expect("UTF-8"), fs::read(e.path()).expect("read"))).collect()
}

/// Steps of the checkpoints in a run folder, oldest first.
pub fn checkpoints(run: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(run) else { return Vec::new() };
    let names = entries.map(|e| e.expect("read").file_name().into_string().expect("UTF-8"));
    let mut steps: Vec<u64> = names.filter_map(|n| n.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

/// A run folder as it is, elsewhere; links stay links.
pub fn copy_run(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a run").map(|e| e.expect("read")) {
        let (kind, target) = (entry.file_type().expect("a type"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_run(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).expect("a link"), target).expect("a link");
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
