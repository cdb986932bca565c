//! Compiles every `src/ops/**/*.cu` to PTX with clang, once for each architecture, and writes the table of what came out
//! to OUT_DIR/ptx_table.rs. No CUDA SDK takes part, and the PTX does not depend on the target that Rust builds for. What the
//! ops say of their files is collected in OUT_DIR/kernel_folders.rs.
//!
//! LICHEN_CLANG names the compiler; `off` builds without kernels. Without it the usual names are tried.
//! LICHEN_CUDA_LINEINFO=1 puts the lines of the sources into the PTX, so that a profiler shows them beside the instructions:
//! these stay the same, and the PTX names this machine's folders.

use std::collections::hash_map::DefaultHasher;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{exit, Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::{env, fs, thread};

/// Architecture and PTX version: what CUDA 10.2's driver takes on a Jetson Nano and a Xavier, and the versions that came
/// with the A100, the Orin and the H100.
const ARCHES: [(u32, u32); 5] = [(53, 63), (72, 63), (80, 70), (87, 74), (90, 78)];
/// Files of instructions that the H100 and H200 alone have begin with this word; their target and PTX version.
const WGMMA: (&str, &str, u32) = ("wgmma_", "90a", 80);
/// Lines of the sources in the PTX, for a profiler: the instructions stay as they are.
const LINE_INFO: &str = "-gline-tables-only";
const CLANGS: [&str; 7] = ["clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14", "clang"];
const CLANG_VERSION_MIN: u32 = 14;
const NO_CLANG: &str = "CUDA kernels not compiled in: no clang at build time";
const SWITCHED_OFF: &str = "CUDA kernels not compiled in: LICHEN_CLANG=off at build time";
/// Uses what a compiler may lack: the target, the PTX version, inline assembly.
const TRIAL: &str = "extern \"C\" __attribute__((global)) void trial(unsigned* p) {
    unsigned r;
    asm volatile(\"shfl.sync.bfly.b32 %0, %1, 1, 0x1f, 0xffffffff;\" : \"=r\"(r) : \"r\"(*p));
    *p = r;
}
";

#[path = "src/cuda/embed.rs"]
mod embed;

/// A kernel as the PTX declares it.
struct Kernel {
    name: String,
    param_bytes: Vec<u32>,
    threads_max: u32,
    blocks_per_sm: u32,
    static_shared_bytes: u32,
}

/// One source, compiled for one architecture.
struct Job<'a> {
    source: &'a Path,
    module: &'a str,
    arch: u32,
    /// Of `sm_`.
    target: String,
    ptx_version: u32,
    ptx: PathBuf,
    key: String,
}

fn main() {
    // Sources are named from here, so that no path of this machine gets into an error or into the PTX.
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    env::set_current_dir(&root).expect("cargo's own folder");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-env-changed=LICHEN_CLANG");
    println!("cargo:rerun-if-env-changed=LICHEN_CUDA_LINEINFO");
    for watched in ["build.rs", "src/cuda/embed.rs", "cuda", "src/ops", "src/formats"] {
        println!("cargo:rerun-if-changed={watched}");
    }

    let mut sources = files_under(Path::new("src/ops"), "cu");
    sources.sort();
    let (clang, missing) = if sources.is_empty() { (None, None) } else { find_clang(&out) };
    if let Some(why) = missing.filter(|why| *why != SWITCHED_OFF) {
        println!("cargo:warning={why}");
        // Where a package puts one: the build is tried again when these change.
        println!("cargo:rerun-if-changed=/usr/bin\ncargo:rerun-if-changed=/usr/local/bin");
    }
    let table = match clang {
        Some(clang) => compile_all(&clang, &sources, &out),
        None => "&[]".into(),
    };
    let text = format!(
        "pub const NOT_COMPILED: Option<&str> = {missing:?};\npub(super) const HAS_LINE_INFO: bool = {};\n\
         pub(super) static ARCHES: &[Arch] = {table};\n",
        has_line_info()
    );
    fs::write(out.join("ptx_table.rs"), text).expect("OUT_DIR can be written");
    fs::write(out.join("kernel_folders.rs"), folders_table(&sources)).expect("OUT_DIR can be written");
}

/// The folders of the sources, each with the `MODULES` of its `mod.rs`.
fn folders_table(sources: &[PathBuf]) -> String {
    let mut folders: Vec<String> = sources.iter().map(|s| module_name(s.parent().expect("a folder"))).collect();
    folders.sort();
    folders.dedup();
    let line = |folder: &String| {
        let path = folder.replace('/', "::");
        format!("    ({folder:?}, crate::ops::{path}::MODULES),\n")
    };
    let lines: String = folders.iter().map(line).collect();
    format!("static FOLDERS: &[(&str, &[KernelModule])] = &[\n{lines}];\n")
}

fn files_under(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).unwrap_or_else(|e| fail(&format!("{}: {e}", folder.display())));
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            found.extend(files_under(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// The compiler, or why there is none. One that LICHEN_CLANG names must do.
fn find_clang(out: &Path) -> (Option<String>, Option<&'static str>) {
    match env::var("LICHEN_CLANG") {
        Ok(off) if off == "off" => return (None, Some(SWITCHED_OFF)),
        Ok(named) if !named.is_empty() => match unfit(&named, out) {
            None => return (Some(named), None),
            Some(why) => fail(&format!("LICHEN_CLANG={named}: {why}")),
        },
        _ => {}
    }
    for name in CLANGS {
        match unfit(name, out) {
            None => return (Some(name.into()), None),
            Some(why) if !why.is_empty() => println!("cargo:warning={name} is passed over: {why}"),
            Some(_) => {}
        }
    }
    (None, Some(NO_CLANG))
}

/// Why a compiler cannot be used: empty when it is not there, `None` when it can.
fn unfit(clang: &str, out: &Path) -> Option<String> {
    let Ok(output) = Command::new(clang).arg("--version").output() else { return Some(String::new()) };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digits = text.split("clang version ").nth(1).map(|v| v.split(['.', ' ']).next().unwrap_or(""));
    let Some(version) = digits.and_then(|v| v.parse::<u32>().ok()) else {
        return Some("it does not say that it is clang".into());
    };
    if version < CLANG_VERSION_MIN {
        return Some(format!("version {version}; {CLANG_VERSION_MIN} or later is needed"));
    }
    let fits = ARCHES.iter().any(|(arch, ptx_version)| trial(clang, &arch.to_string(), *ptx_version, out));
    (!fits).then(|| "it cannot emit PTX (built without the NVPTX target?)".into())
}

fn trial(clang: &str, target: &str, ptx_version: u32, out: &Path) -> bool {
    let source = out.join("trial.cu");
    fs::write(&source, TRIAL).expect("OUT_DIR can be written");
    run_clang(clang, &source, target, ptx_version, &out.join("trial.ptx")).status.success()
}

fn run_clang(clang: &str, source: &Path, target: &str, ptx_version: u32, ptx: &Path) -> Output {
    let arch = target.trim_end_matches('a');
    let mut command = Command::new(clang);
    command.args(["-x", "cuda", "-std=c++17", "--cuda-device-only", "-nocudainc", "-nocudalib"]);
    command.arg(format!("--cuda-gpu-arch=sm_{target}"));
    command.args(["-Xclang", "-target-feature", "-Xclang", &format!("+ptx{ptx_version}")]);
    command.args(["-O3", "-ffp-contract=off", "-Icuda", &format!("-DLICHEN_ARCH={arch}"), "-S"]);
    command.args(has_line_info().then_some(LINE_INFO));
    command.arg(source).arg("-o").arg(ptx);
    command.output().unwrap_or_else(|e| fail(&format!("{clang}: {e}")))
}

fn has_line_info() -> bool {
    env::var("LICHEN_CUDA_LINEINFO").is_ok_and(|value| value == "1")
}

/// Compiles what changed since the last time, on all cores, and writes the table.
fn compile_all(clang: &str, sources: &[PathBuf], out: &Path) -> String {
    let names: Vec<String> = sources.iter().map(|s| module_name(s)).collect();
    let common = common_key(clang);
    let mut jobs = Vec::new();
    for (arch, ptx_version) in ARCHES {
        if !trial(clang, &arch.to_string(), ptx_version, out) {
            println!(
                "cargo:warning={clang} does not know sm_{arch}: its devices run the kernels of an older architecture"
            );
            continue;
        }
        let has_wgmma = arch == 90 && trial(clang, WGMMA.1, WGMMA.2, out);
        for (source, module) in sources.iter().zip(&names) {
            let is_wgmma = module.rsplit('/').next().is_some_and(|file| file.starts_with(WGMMA.0));
            if is_wgmma && !has_wgmma {
                continue;
            }
            let (target, ptx_version) =
                if is_wgmma { (WGMMA.1.to_string(), WGMMA.2) } else { (arch.to_string(), ptx_version) };
            let ptx = out.join(format!("{arch}-{}.ptx", module.replace('/', "-")));
            let text = fs::read(source).unwrap_or_else(|e| fail(&format!("{}: {e}", source.display())));
            let key = format!("{common:016x}{:016x}", hash(&(text, &target, ptx_version)));
            jobs.push(Job { source, module, arch, target, ptx_version, ptx, key });
        }
    }
    run_jobs(clang, &jobs);
    write_table(&jobs)
}

/// `src/ops/matmul/decode.cu` is `matmul/decode`.
fn module_name(source: &Path) -> String {
    let relative = source.strip_prefix("src/ops").expect("found there").with_extension("");
    relative.to_str().unwrap_or_else(|| fail(&format!("{}: not UTF-8", source.display()))).replace('\\', "/")
}

/// What every PTX depends on: the compiler, this file with its flags, and all headers.
fn common_key(clang: &str) -> u64 {
    let version = Command::new(clang).arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    let mut headers = vec![PathBuf::from("build.rs")];
    for folder in ["cuda", "src/ops", "src/formats"] {
        headers.extend(files_under(Path::new(folder), "cuh"));
    }
    headers.sort();
    let texts: Vec<Vec<u8>> = headers.iter().map(|h| fs::read(h).unwrap_or_default()).collect();
    hash(&(clang, version, headers, texts, has_line_info()))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The key of a finished PTX stands beside it: rustc's cache works by files, and an edit of a .rs file in `src/ops` runs
/// this program again.
fn run_jobs(clang: &str, jobs: &[Job]) {
    let next = AtomicUsize::new(0);
    let errors = Mutex::new(Vec::new());
    let work = || loop {
        let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
        let key_file = job.ptx.with_extension("key");
        if job.ptx.exists() && fs::read_to_string(&key_file).is_ok_and(|k| k == job.key) {
            continue;
        }
        let output = run_clang(clang, job.source, &job.target, job.ptx_version, &job.ptx);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            let head = format!("{} does not compile for sm_{} with {clang}:", job.source.display(), job.arch);
            errors.lock().expect("no panics").push(format!("{head}\n{said}"));
            continue;
        }
        for line in said.lines() {
            println!("cargo:warning={line}");
        }
        fs::write(key_file, &job.key).expect("OUT_DIR can be written");
    };
    let n_threads = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1).clamp(1, jobs.len().max(1));
    thread::scope(|scope| (0..n_threads).for_each(|_| drop(scope.spawn(work))));
    let mut errors = errors.into_inner().expect("no panics");
    errors.sort();
    // One architecture's messages are enough for a fault in the source.
    if let Some(first) = errors.first() {
        fail(first);
    }
}

fn write_table(jobs: &[Job]) -> String {
    let mut table = String::from("&[\n");
    let (mut n_raw, mut n_compressed) = (0, 0);
    // Texts that a later architecture's may differ little from, by module, the newest last.
    let mut bases: HashMap<&str, Vec<(u32, String)>> = HashMap::new();
    for (arch, _) in ARCHES.iter().filter(|(a, _)| jobs.iter().any(|j| j.arch == *a)) {
        writeln!(table, "    Arch {{ arch: {arch}, modules: &[").expect("a string");
        let mut owners: HashMap<String, &str> = HashMap::new();
        for job in jobs.iter().filter(|j| j.arch == *arch) {
            let ptx = fs::read_to_string(&job.ptx).expect("just written");
            let kernels = parse(&ptx).unwrap_or_else(|why| fail(&format!("{}: {why}", job.ptx.display())));
            for kernel in &kernels {
                if let Some(other) = owners.insert(kernel.name.clone(), job.module) {
                    fail(&format!("kernel {} is in both {other}.cu and {}.cu", kernel.name, job.module));
                }
            }
            // A file may have nothing for an architecture.
            if !kernels.is_empty() {
                n_raw += ptx.len();
                n_compressed += write_module(&mut table, job, &kernels, &ptx, bases.entry(job.module).or_default());
            }
        }
        table.push_str("    ] },\n");
    }
    // In the output file of this program, for those who watch the size.
    println!("PTX: {n_raw} bytes, {n_compressed} embedded");
    table + "]"
}

/// Returns the bytes that are embedded.
fn write_module(table: &mut String, job: &Job, kernels: &[Kernel], ptx: &str, bases: &mut Vec<(u32, String)>) -> usize {
    let difference = bases.iter().rev().find_map(|(arch, base)| {
        let difference = embed::difference(base, ptx)?;
        assert!(embed::patched(base, &difference).is_some_and(|p| p == ptx), "{}: a difference", job.module);
        Some((*arch, difference))
    });
    let (base, stored) = difference.map_or((None, ptx.to_string()), |(arch, stored)| (Some(arch), stored));
    if base.is_none() {
        bases.push((job.arch, ptx.to_string()));
    }
    let compressed = compress_once(&stored, &job.ptx.with_extension("z"));
    let (name, key) = (job.module, embed::key(&[ptx.as_bytes()]));
    writeln!(table, "        Module {{ name: {name:?}, key: {key:#x}, base: {base:?},").expect("a string");
    let file = job.ptx.with_extension("z");
    writeln!(table, "            stored_bytes: {}, compressed: include_bytes!({file:?}), kernels: &[", stored.len())
        .expect("a string");
    for Kernel { name, param_bytes, threads_max, blocks_per_sm, static_shared_bytes } in kernels {
        writeln!(table, "                KernelInfo {{ name: {name:?}, param_bytes: &{param_bytes:?},")
            .expect("a string");
        let bounds = format!("threads_max: {threads_max}, blocks_per_sm: {blocks_per_sm}");
        writeln!(table, "                    {bounds}, static_shared_bytes: {static_shared_bytes} }},")
            .expect("a string");
    }
    table.push_str("        ] },\n");
    compressed
}

/// Compresses into `file` what is not there already: a build without optimisation does 2 MB a second.
fn compress_once(stored: &str, file: &Path) -> usize {
    let key_file = file.with_extension("z-key");
    let key = format!("{:032x}", embed::key(&[stored.as_bytes()]));
    if !fs::read_to_string(&key_file).is_ok_and(|k| k == key) || !file.exists() {
        fs::write(file, miniz_oxide::deflate::compress_to_vec(stored.as_bytes(), 9)).expect("OUT_DIR can be written");
        fs::write(key_file, key).expect("OUT_DIR can be written");
    }
    fs::metadata(file).map_or(0, |m| m.len() as usize)
}

/// Entries with the sizes of their parameters. The text between `.entry` and `{` is
/// `name(\n .param .u64 name_param_0,\n .param .u32 name_param_1\n)\n.maxntid 256, 1, 1\n.minnctapersm 2\n`.
fn parse(ptx: &str) -> Result<Vec<Kernel>, String> {
    let mut kernels = Vec::new();
    let mut pieces = ptx.split(".entry ");
    let of_module = pieces.next().unwrap_or("");
    for piece in pieces {
        let (head, body) = piece.split_once('{').ok_or("an entry without a body")?;
        let (name, rest) = head.split_once('(').ok_or("an entry without parameters")?;
        let (params, attributes) = rest.split_once(')').ok_or("an entry whose parameters do not end")?;
        let mut param_bytes = Vec::new();
        for param in params.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            param_bytes.push(param_size(param).ok_or(format!("{}: a parameter `{param}`", name.trim()))?);
        }
        let bound = |directive: &str| {
            let digits = attributes.split(directive).nth(1)?.trim().split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        let static_shared_bytes =
            shared_bytes(of_module, |array| body.contains(array))? + shared_bytes(body, |_| true)?;
        kernels.push(Kernel {
            name: name.trim().into(),
            param_bytes,
            threads_max: bound(".maxntid").unwrap_or(1024),
            blocks_per_sm: bound(".minnctapersm").unwrap_or(1),
            static_shared_bytes,
        });
    }
    Ok(kernels)
}

/// Bytes of the arrays in shared memory that `ptx` declares, of those whose name is wanted, each at its alignment:
/// `.shared .align 16 .b8 partial[256];`, or one number without brackets. What a launch asks for beside them is `.extern` there.
fn shared_bytes(ptx: &str, wanted: impl Fn(&str) -> bool) -> Result<u32, String> {
    let mut total = 0u32;
    for line in ptx.lines().map(str::trim).filter(|line| line.starts_with(".shared ")) {
        let sizes = || {
            let mut words = line.trim_end_matches(';').split_whitespace().skip(1);
            let align: u32 = words.next().filter(|w| *w == ".align").and_then(|_| words.next()?.parse().ok())?;
            let bits: u32 = words.next()?.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
            let word = words.next()?;
            let (name, count) = word.split_once('[').unwrap_or((word, "1"));
            Some((name, align, count.trim_end_matches(']').parse::<u32>().ok()? * bits / 8))
        };
        let (name, align, bytes) = sizes().ok_or(format!("an array `{line}`"))?;
        if wanted(name) {
            total = total.next_multiple_of(align) + bytes;
        }
    }
    Ok(total)
}

/// Numbers of 32 and 64 bits, and pointers: what the launch code passes.
fn param_size(param: &str) -> Option<u32> {
    match param.strip_prefix(".param ")?.split_whitespace().next()? {
        ".u64" | ".s64" | ".b64" => Some(8),
        ".u32" | ".s32" | ".b32" | ".f32" => Some(4),
        _ => None,
    }
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    exit(1)
}
