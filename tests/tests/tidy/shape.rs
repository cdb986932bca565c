//! How long files and functions may be.

use crate::source::{split, File, Offence};
use crate::{enforce, lines_of};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_BYTES_MAX: u64 = 10_000_000;
/// Tables of broken files and their sentences: data, read by row.
const LONG_FILES: [&str; 1] = ["tests/tests/formats/corpus_folder.rs"];

fn short_files(files: &[File]) -> Vec<Offence> {
    let ours = files.iter().filter(|f| f.has_extension(&["rs", "cu", "cuh", "py", "sh", "h", "c", "cpp"]));
    ours.filter(|f| !LONG_FILES.contains(&f.path.as_str()))
        .map(|f| (f, f.text.lines().count()))
        .filter(|(_, n)| *n > FILE_LINES_MAX)
        .map(|(f, n)| Offence::new(&f.path, FILE_LINES_MAX + 1, format!("{n} lines; at most {FILE_LINES_MAX}")))
        .collect()
}

fn small_files(files: &[File]) -> Vec<Offence> {
    let large = files.iter().filter(|f| f.n_bytes > FILE_BYTES_MAX);
    large.map(|f| Offence::new(&f.path, 1, format!("{} bytes; at most {FILE_BYTES_MAX}", f.n_bytes))).collect()
}

fn short_functions(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in files {
        let functions = match () {
            () if file.has_extension(&["rs"]) => rust_functions(&split(&file.text).code),
            () if file.has_extension(&["py"]) => python_functions(&file.text),
            () => continue,
        };
        for (line, n_lines) in functions.into_iter().filter(|(_, n)| *n > FUNCTION_LINES_MAX) {
            let what = format!("a function of {n_lines} lines; at most {FUNCTION_LINES_MAX}");
            offences.push(Offence::new(&file.path, line, what));
        }
    }
    offences
}

/// (first line, number of lines) of each function with a body, from the line of `fn` to its closing brace.
fn rust_functions(code: &str) -> Vec<(usize, usize)> {
    let mut functions = Vec::new();
    // Functions that are open: their first line, and the depth of braces outside their body.
    let mut open: Vec<(usize, usize)> = Vec::new();
    // A function whose body has not begun yet.
    let mut head = None;
    let mut depth = 0;
    for (number, line) in code.lines().enumerate() {
        let mut word = String::new();
        for c in line.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            // A name follows `fn`; `fn(` is a type.
            if word == "fn" && c == ' ' {
                head = Some(number);
            }
            word.clear();
            match c {
                '{' => {
                    open.extend(head.take().map(|first| (first, depth)));
                    depth += 1;
                }
                '}' => {
                    depth -= 1;
                    if open.last().is_some_and(|(_, outside)| *outside == depth) {
                        let (first, _) = open.pop().expect("just seen");
                        functions.push((first + 1, number - first + 1));
                    }
                }
                // A declaration without a body; a `;` inside an array type is followed by the body's brace.
                ';' if line.trim_end().ends_with(';') => head = None,
                _ => {}
            }
        }
    }
    functions
}

/// (first line, number of lines) of each `def`, to the last line that is indented deeper.
fn python_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut functions = Vec::new();
    for (first, line) in lines.iter().enumerate().filter(|(_, l)| l.trim_start().starts_with("def ")) {
        let mut last = first;
        for (number, below) in lines.iter().enumerate().skip(first + 1) {
            // The closing parenthesis of a long head stands where `def` does.
            if !below.trim().is_empty() && indent(below) <= indent(line) && !below.trim_start().starts_with(')') {
                break;
            }
            if !below.trim().is_empty() {
                last = number;
            }
        }
        functions.push((first + 1, last - first + 1));
    }
    functions
}

#[test]
fn files_are_short() {
    enforce(short_files);
}

#[test]
fn files_are_short_catches() {
    assert_eq!(lines_of(short_files, "kernels/src/a.rs", &"x\n".repeat(401)), [401]);
    assert_eq!(lines_of(short_files, "kernels/src/a.cu", &"x\n".repeat(401)), [401]);
    assert!(lines_of(short_files, "kernels/src/a.rs", &"x\n".repeat(400)).is_empty());
}

#[test]
fn no_file_is_over_10_mb() {
    enforce(small_files);
}

#[test]
fn no_file_is_over_10_mb_catches() {
    let mut file = File::planted("runtime/demo/model.gguf", "");
    file.n_bytes = FILE_BYTES_MAX + 1;
    assert_eq!(small_files(&[file]).len(), 1);
}

#[test]
fn functions_are_short() {
    enforce(short_functions);
}

#[test]
fn functions_are_short_catches() {
    let body = "    let x = [0; 4];\n".repeat(69);
    let long = format!("trait T {{\n    fn declared(x: [u8; 4]);\n}}\n\npub fn f(g: fn(u8) -> u8)\n{{\n{body}}}\n");
    assert_eq!(lines_of(short_functions, "runtime/src/a.rs", &long), [5]);
    let nested = format!("fn f() {{\n    {{ fn g() {{}} }}\n{body}}}\n");
    assert_eq!(lines_of(short_functions, "runtime/src/a.rs", &nested), [1]);
    assert!(lines_of(short_functions, "runtime/src/a.rs", &format!("fn f() {{\n{}}}", &body[20..])).is_empty());
    let python = format!("x = 1\n\ndef f(\n    a,\n):\n{}\ny = 2\n", "    a = 1\n".repeat(68));
    assert_eq!(lines_of(short_functions, "host-tools/demo/a.py", &python), [3]);
}
