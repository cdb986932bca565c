//! `cargo run -p lichen-tests --example fuzz_seeds -- FOLDER`: small inputs for the fuzz targets to begin with, made as the
//! mutation tests make theirs: FOLDER/TARGET.seeds/NUMBER, about a third of them sound.

use std::path::PathBuf;
use std::process::ExitCode;

use lichen_tests::formats::random::Random;
use lichen_tests::formats::{mutate, mutate_rows};

/// One input from a random source.
type Maker = fn(&mut Random) -> Vec<u8>;

const N_SEEDS: usize = 200;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fuzz_seeds FOLDER");
        return ExitCode::from(2);
    };
    let makers: [(&str, Maker); 8] = [
        ("gguf", mutate::gguf),
        ("gguf_split", mutate::gguf_split),
        ("gguf_adapter", mutate::gguf_adapter),
        ("safetensors", mutate::safetensors),
        ("hf_config", mutate::hf_config),
        ("adapter_config", mutate::adapter_config),
        ("peft_adapter", mutate::peft_adapter),
        ("rows", mutate_rows::rows),
    ];
    for (target, make) in makers {
        let into = folder.join(format!("{target}.seeds"));
        std::fs::create_dir_all(&into).expect("the folder can be made");
        for i in 0..N_SEEDS {
            let seed = make(&mut Random::new(i as u64));
            std::fs::write(into.join(i.to_string()), seed).expect("the file can be written");
        }
    }
    ExitCode::SUCCESS
}
