//! The shell reads of a board's file what the library reads of it.

use std::path::Path;
use std::process::Command;

use lichen_runtime::board::device_config::DeviceConfig;
use lichen_tests::programs::{run, Run};

fn show(board: &str) -> Run {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../cross/build-aarch64.sh");
    run(Command::new("bash").args([script, "--show", "--board", board]))
}

#[test]
fn programs_are_built_as_the_boards_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../device-configs");
    let mut n_boards = 0;
    for entry in std::fs::read_dir(&folder).expect("there").map(|e| e.expect("readable").path()) {
        let Some(board) = entry.to_str().and_then(|p| p.rsplit('/').next()?.strip_suffix(".toml")) else { continue };
        let config = DeviceConfig::read(&entry).unwrap_or_else(|e| panic!("{e}"));
        let (Some(triple), Some(glibc), Some(features)) =
            (config.build_triple, config.build_glibc, config.build_features)
        else {
            let refused = show(board);
            let message = format!("cross: device-configs/{board}.toml: [build] needs triple and glibc");
            assert!(refused.code == Some(1) && refused.stderr.starts_with(&message), "{refused:?}");
            continue;
        };
        let want = format!("cross: board {board}: triple {triple}, glibc {glibc}, features {}\n", features.join(","));
        assert_eq!(show(board).ok().stdout, want);
        n_boards += 1;
    }
    assert!(n_boards >= 1);
    let nobody = show("no-such-board");
    assert_eq!(nobody.code, Some(1));
    assert_eq!(nobody.stderr, "cross: device-configs/no-such-board.toml: No such file or directory\n");
}
