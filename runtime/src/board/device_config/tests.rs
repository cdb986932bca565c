use std::fs;
use std::path::PathBuf;

use super::*;
use crate::memory_plan::{DEFAULT_CHUNK, DEFAULT_CONTEXT};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../device-configs").join(name)
}

/// A folder of its own for each test, empty.
fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("lichen-device-config-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a temporary folder");
    dir
}

/// The values of a text alone.
fn values(text: &str) -> Result<DeviceConfig> {
    let mut config = DeviceConfig::default();
    parse(text)?.put(&mut config);
    Ok(config)
}

#[test]
fn the_base_says_what_the_program_does() {
    let base = DeviceConfig::read(&shipped("base.toml")).expect("sound");
    let expected = DeviceConfig {
        memory_mib: None,
        memory_budget_mib: None,
        context_tokens: Some(DEFAULT_CONTEXT),
        prefill_chunk_tokens: Some(DEFAULT_CHUNK),
        threads: None,
        kv_cache: Some(KvCacheChoice::Auto),
        ..DeviceConfig::default()
    };
    assert_eq!(base, expected);
}

#[test]
fn a_board_differs_from_the_base() {
    let nano = DeviceConfig::read(&shipped("jetson-nano-4gb.toml")).expect("sound");
    assert_eq!(nano.memory_bytes(), Some(4096 << 20));
    assert_eq!(nano.memory_budget_bytes(), Some(2048 << 20));
    assert_eq!(nano.kv_cache, Some(KvCacheChoice::Format(KvFormat::F16)));
    assert_eq!(nano.context_tokens, Some(DEFAULT_CONTEXT), "inherited");
    let build = (nano.build_triple.as_deref(), nano.build_glibc.as_deref());
    assert_eq!(build, (Some("aarch64-unknown-linux-gnu"), Some("2.27")));
    assert_eq!(nano.build_features, Some(["lichen-runtime/cli", "lichen-trainer/cli"].map(str::to_string).to_vec()));
}

#[test]
fn every_shipped_file_is_sound_and_holds_differences_only() {
    let base = parse(&fs::read_to_string(shipped("base.toml")).expect("there")).expect("sound");
    assert!(base.notes.is_empty(), "{:?}", base.notes);
    let mut n_boards = 0;
    for entry in fs::read_dir(shipped("")).expect("there").map(|e| e.expect("readable").path()) {
        if entry.extension().is_none_or(|e| e != "toml") || entry.ends_with("base.toml") {
            continue;
        }
        DeviceConfig::read(&entry).unwrap_or_else(|e| panic!("{e}"));
        let own = parse(&fs::read_to_string(&entry).expect("there")).expect("sound");
        assert_eq!(own.parent.as_deref(), Some("base.toml"), "{}", entry.display());
        assert!(own.notes.is_empty(), "{}: {:?}", entry.display(), own.notes);
        for (key, value) in &own.values {
            let is_same = base.values.iter().any(|(other, inherited)| other.name == key.name && inherited == value);
            assert!(!is_same, "{}: {} is the base's", entry.display(), key.name);
        }
        n_boards += 1;
    }
    assert!(n_boards >= 1);
}

#[test]
fn mistakes_are_named_with_their_line() {
    let huge = "9".repeat(80);
    for (text, message) in [
        ("\n\n\nthread = 4", "config line 4: unknown key \"thread\" (did you mean \"threads\"?)"),
        ("temprature = 1", "config line 1: unknown key \"temprature\""),
        ("threads = 0", "config line 1: threads is 0; 1 to 1024"),
        ("threads = -1", "config line 1: threads is -1; 1 to 1024"),
        ("threads = 9223372036854775808", "config line 1: threads is 9223372036854775808; 1 to 1024"),
        ("threads = nan", "config line 1: threads is nan; 1 to 1024"),
        ("threads = 4.0", "config line 1: threads is 4.0; 1 to 1024"),
        ("threads = \"4\"", "config line 1: threads is \"4\"; 1 to 1024"),
        ("threads = []", "config line 1: threads is an array; 1 to 1024"),
        ("# a\nkv_cache = \"f64\"", "config line 2: kv_cache is \"f64\"; \"auto\", \"f32\", \"f16\" or \"int8\""),
        ("[kv_cache]\n", "config line 1: kv_cache is a table; \"auto\", \"f32\", \"f16\" or \"int8\""),
        (
            "inherit = \"../base.toml\"",
            "config line 1: inherit is \"../base.toml\"; the name of a .toml file in the same folder",
        ),
        ("[run]\nthread = 4", "config line 2: unknown key \"thread\" (did you mean \"threads\"?)"),
        ("[run]\nthreads = 0", "config line 2: threads is 0; 1 to 1024"),
        ("[runn]\n", "config line 1: unknown key \"runn\" (did you mean \"run\"?)"),
        ("run = 3", "config line 1: run is 3; the section [run] is needed"),
        ("[train]\n\nthreads = 1", "config line 3: threads is a key of [run], not of [train]"),
        ("max_board_temp_c = 80", "config line 1: max_board_temp_c is a key of the section [train]"),
        ("[train]\nmax_board_temp_c = nan", "config line 2: max_board_temp_c is nan; 40 to 110"),
        ("[train]\nmax_board_temp_c = 110.5", "config line 2: max_board_temp_c is 110.5; 40 to 110"),
        ("[train]\npower_budget_mw = 5.0", "config line 2: power_budget_mw is 5.0; 100 to 1000000"),
        ("threads = 1\n[run]\nthreads = 1", "config line 3: threads stands twice"),
        (
            "[build]\ntriple = \"aarch64\"",
            "config line 2: triple is \"aarch64\"; a target triple such as \"aarch64-unknown-linux-gnu\"",
        ),
        ("[build]\nglibc = 2.27", "config line 2: glibc is 2.27; a version such as \"2.27\""),
        (
            "[build]\nfeatures = [\"cli\", \"-x\"]",
            "config line 2: features is an array; a list of cargo features such as \"lichen-runtime/cli\"",
        ),
        ("[run]\n[train]\n[run]\n", "config line 3: duplicate key"),
        // The first mistake of the file, not of the alphabet.
        ("[train]\nx = 1\n[device]\nx = 1", "config line 2: unknown key \"x\""),
        ("threads = 0\ncontext_tokens = 0", "config line 1: threads is 0; 1 to 1024"),
        (&format!("threads = {huge}"), &format!("config line 1: threads is {huge}; 1 to 1024")),
    ] {
        let error = values(text).expect_err(text);
        assert_eq!(error.message(), message, "{text}");
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    for (text, line) in [("threads = 1\nthreads = 2\n", 2), ("threads 4", 1), ("\nthreads = ", 2), ("a = 'b", 1)] {
        let error = values(text).expect_err(text);
        assert!(error.message().starts_with(&format!("config line {line}: ")), "{text:?}: {error}");
        assert!(!error.message().contains('\n'), "{text:?}: {error}");
    }
}

#[test]
fn other_notations_of_a_number_are_read() {
    assert_eq!(values("context_tokens = 4_096").expect("sound").context_tokens, Some(4096));
    assert_eq!(values("context_tokens = 0x1000").expect("sound").context_tokens, Some(4096));
    assert_eq!(values("\u{feff}threads = 2\r\n").expect("sound").threads, Some(2));
    for (number, want) in [("85", 85.0), ("85.5", 85.5), ("8_5.0e0", 85.0)] {
        let board = values(&format!("[train]\nmax_board_temp_c = {number}")).expect("sound");
        assert_eq!(board.max_board_temp_c, Some(want), "{number}");
    }
}

#[test]
fn the_nearest_file_wins_and_a_circle_ends() {
    let dir = folder("chain");
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("written");
    write("base.toml", "threads = 1\ncontext_tokens = 64\n");
    write("board.toml", "inherit = \"base.toml\"\nthreads = 2\n");
    let board = DeviceConfig::read(&dir.join("board.toml")).expect("sound");
    assert_eq!((board.threads, board.context_tokens), (Some(2), Some(64)));

    write("base.toml", "inherit = \"board.toml\"\n");
    let error = DeviceConfig::read(&dir.join("board.toml")).expect_err("a circle");
    assert!(error.message().ends_with("inherits through more than 8 files (a circle?)"), "{error}");

    write("base.toml", "treads = 1\n");
    let error = DeviceConfig::read(&dir.join("board.toml")).expect_err("the parent is wrong");
    let parent = dir.join("base.toml");
    let expected = format!("{}: config line 1: unknown key \"treads\" (did you mean \"threads\"?)", parent.display());
    assert_eq!(error.message(), expected);
    fs::remove_dir_all(&dir).expect("ours");
}

#[test]
fn deep_nesting_does_not_fell_the_reader() {
    for text in [format!("threads = {}", "[".repeat(100_000)), format!("a{} = 1", ".b".repeat(100_000))] {
        assert!(values(&text).is_err());
    }
}

/// Files that were written before there were sections are read, and told where their keys live now.
#[test]
fn keys_outside_of_sections_are_read_with_a_note() {
    let old = "memory_mib = 4096\n\nthreads = 2\n[run]\nkv_cache = \"f16\"\n";
    let file = parse(old).expect("sound");
    let want = [
        "line 1: memory_mib is a key of the section [device] now",
        "line 3: threads is a key of the section [run] now",
    ];
    assert_eq!(file.notes, want);
    let new = "[device]\nmemory_mib = 4096\n[run]\nthreads = 2\nkv_cache = \"f16\"\n";
    assert_eq!(values(old).expect("sound"), values(new).expect("sound"));
    assert!(parse(new).expect("sound").notes.is_empty());
}

/// The table of the documentation is the table of the program.
#[test]
fn the_documentation_lists_every_key() {
    let readme = fs::read_to_string(shipped("README.md")).expect("there");
    let documented: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `[")).collect();
    let line = |key: &Key| {
        let values = key.kind.expected();
        let unit = if key.unit.is_empty() { String::new() } else { format!(" {}", key.unit) };
        format!("| `[{}]` | `{}` | {values}{unit} | {} |", key.section.name(), key.name, key.absent)
    };
    let want: Vec<String> = KEYS.iter().map(line).collect();
    assert_eq!(documented, want);
}
