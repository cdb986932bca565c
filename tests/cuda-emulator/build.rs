//! Compiles every kernel as C++ for the CPU, once for each architecture, with clang.
//!
//! The objects become part of libcuda.so. Without clang the library is built all the same, and cuInit says why it has no
//! kernels. An object is kept while the command and the contents of every file it came from stay as they were.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::thread;

const ARCHS: [u32; 5] = [53, 72, 80, 87, 90];
const CLANG_VERSION_MIN: u32 = 14;

/// Undefined behaviour that a GPU answers with an error or with garbage: a trap here.
const FLAGS: [&str; 20] = [
    "-x",
    "c++",
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-strict-aliasing",
    "-fPIC",
    "-fvisibility=hidden",
    "-fsanitize=alignment,bounds,shift-exponent,integer-divide-by-zero",
    "-fsanitize-trap=all",
    // A local that was never written is not 0 by chance.
    "-ftrivial-auto-var-init=pattern",
    "-mllvm",
    "-pragma-unroll-threshold=0",
    "-Wall",
    "-Wno-unused",
    "-Wno-pass-failed",
];

/// One file for one architecture.
struct Unit {
    source: PathBuf,
    arch: u32,
    object: PathBuf,
}

struct Compiler {
    command: String,
    target: String,
    /// What the processor that builds has, as the x86-64 level to compile for.
    level: Option<&'static str>,
    include: Vec<PathBuf>,
}

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let root = here.join("../..").canonicalize().expect("the repository's root");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    println!("cargo:rustc-check-cfg=cfg(has_kernels)");
    println!("cargo:rerun-if-env-changed=LICHEN_CLANG");
    for watched in ["kernels/src/ops", "kernels/src/formats", "kernels/cuda"] {
        println!("cargo:rerun-if-changed={}", root.join(watched).display());
    }
    for watched in ["Cargo.toml", "build.rs", "include", "kernels", "src"] {
        println!("cargo:rerun-if-changed={}", here.join(watched).display());
    }
    let Some(command) = find_clang() else {
        println!("cargo:warning=no clang: the emulator is built without kernels");
        return;
    };
    let target = env::var("TARGET").expect("set by cargo");
    let level = level_of(&target);
    println!("cargo:rustc-env=LICHEN_EMULATOR_LEVEL={}", level.unwrap_or(""));
    let include = vec![here.join("include"), root.join("kernels/cuda")];
    let compiler = Compiler { command, target, level, include };
    let mut sources = Vec::new();
    find_kernels(&root.join("kernels/src/ops"), &mut sources);
    find_kernels(&here.join("kernels"), &mut sources);
    let mut units = vec![Unit { source: here.join("include/runtime.cpp"), arch: 0, object: out.join("runtime.o") }];
    for source in &sources {
        let stem = source.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let folder = hash_of(&source.parent().map(Path::to_path_buf));
        let object = |arch| out.join(format!("{stem}-{folder:016x}-{arch}.o"));
        units.extend(ARCHS.map(|arch| Unit { source: source.clone(), arch, object: object(arch) }));
    }
    compile_all(&compiler, &units);
    for unit in &units {
        println!("cargo:rustc-cdylib-link-arg={}", unit.object.display());
    }
    // exp2f and, on processors without it, fmaf.
    println!("cargo:rustc-cdylib-link-arg=-lm");
    println!("cargo:rustc-cfg=has_kernels");
}

/// As kernels/build.rs finds it: the one that is named or none, else the newest of these; `off` is none.
fn find_clang() -> Option<String> {
    let named = env::var("LICHEN_CLANG").ok().filter(|c| !c.is_empty());
    if named.as_deref() == Some("off") {
        return None;
    }
    let usual = (CLANG_VERSION_MIN..=19).rev().map(|version| format!("clang-{version}")).chain(["clang".to_string()]);
    let names: Vec<String> = named.clone().map_or_else(|| usual.collect(), |name| vec![name]);
    let found = names.into_iter().find(|name| version_of(name).is_some_and(|v| v >= CLANG_VERSION_MIN));
    assert!(
        named.is_none() || found.is_some(),
        "LICHEN_CLANG={} is no clang {CLANG_VERSION_MIN}",
        named.unwrap_or_default()
    );
    found
}

fn version_of(clang: &str) -> Option<u32> {
    let output = Command::new(clang).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split("clang version ").nth(1)?.split(['.', ' ']).next()?.parse().ok()
}

/// FMA, F16C and AVX2 where the building machine has them; the library refuses to run where they are missing.
fn level_of(target: &str) -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if target.starts_with("x86_64") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
        return is_x86_feature_detected!("f16c").then_some("x86-64-v3");
    }
    let _ = target;
    None
}

fn find_kernels(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            find_kernels(&path, found);
        } else if path.extension().is_some_and(|e| e == "cu") {
            found.push(path);
        }
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn compile_all(compiler: &Compiler, units: &[Unit]) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let n_jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1).clamp(1, units.len());
        for _ in 0..n_jobs {
            scope.spawn(|| {
                while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(message) = compile(compiler, unit) {
                        failures.lock().expect("no panic").push(message);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn compile(compiler: &Compiler, unit: &Unit) -> Result<(), String> {
    let mut command = Command::new(&compiler.command);
    command.args(FLAGS).arg(format!("--target={}", compiler.target));
    command.args(compiler.level.map(|level| format!("-march={level}")));
    command.args(compiler.include.iter().map(|folder| format!("-I{}", folder.display())));
    let depfile = unit.object.with_extension("d");
    command.arg("-MD").arg("-MF").arg(&depfile).arg("-c").arg("-o").arg(&unit.object);
    if unit.arch == 0 {
        command.arg(&unit.source);
    } else {
        // The unnamed namespace keeps what two files, or two architectures of one, call by the same name apart.
        let wrapper = unit.object.with_extension("cpp");
        let text = format!("#include \"runtime.h\"\nnamespace {{\n#include \"{}\"\n}}\n", unit.source.display());
        if fs::read_to_string(&wrapper).ok().as_ref() != Some(&text) {
            fs::write(&wrapper, text).map_err(|e| format!("{}: {e}", wrapper.display()))?;
        }
        command.arg(format!("-DLICHEN_ARCH={}", unit.arch)).arg(&wrapper);
    }
    let keyfile = unit.object.with_extension("key");
    let key = |command: &Command| format!("{:016x}", hash_of(&(format!("{command:?}"), contents(&depfile))));
    if unit.object.exists() && fs::read_to_string(&keyfile).is_ok_and(|k| k == key(&command)) {
        return Ok(());
    }
    let output = command.output().map_err(|e| format!("{}: {e}", compiler.command))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("{} for sm_{}:\n{errors}", unit.source.display(), unit.arch));
    }
    for line in errors.lines().filter(|l| l.contains("warning:")) {
        println!("cargo:warning=sm_{}: {line}", unit.arch);
    }
    fs::write(&keyfile, key(&command)).map_err(|e| format!("{}: {e}", keyfile.display()))
}

/// The contents of every file the last compilation read.
fn contents(depfile: &Path) -> Vec<Option<Vec<u8>>> {
    let rule = fs::read_to_string(depfile).unwrap_or_default().replace("\\\n", " ");
    let files = rule.split_once(": ").map_or("", |(_, files)| files);
    files.split_whitespace().map(|file| fs::read(file).ok()).collect()
}
