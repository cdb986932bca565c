//! A GGUF file in parts, as llama.cpp splits it.

use std::path::Path;

use lichen_host_tools::quantize::{run, Options, Report, Target};
use lichen_runtime::files::formats::gguf::PartName;
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::{Error, ModelSource, Part};
use lichen_tests::models::{fixture, temp_dir};

use super::{names, open_gguf, options, quantize};

fn split(model: &Path, out: &Path, bytes_max: u64) -> Result<Report, Error> {
    run(&Options { split_bytes_max: Some(bytes_max), ..options(model, Target::Q8_0, out) }, &mut ())
}

#[test]
fn parts_are_no_longer_than_asked_and_hold_the_model() {
    let dir = temp_dir("quantize-split");
    let (whole, parts) = (dir.join("whole"), dir.join("parts"));
    for folder in [&whole, &parts] {
        std::fs::create_dir(folder).expect("temporary folder");
    }
    quantize(&fixture("tiny-gemma3"), Target::Q8_0, &whole.join("m.gguf")).unwrap_or_else(|e| panic!("{e}"));
    let bytes_max = 60_000;
    let report = split(&fixture("tiny-gemma3"), &parts.join("m.gguf"), bytes_max).unwrap_or_else(|e| panic!("{e}"));
    let files = names(&parts);
    assert!(files.len() > 2 && report.parts == files.len(), "{files:?}");
    assert_eq!(report.out, parts.join(&files[0]));
    let mut total = 0;
    for (i, name) in files.iter().enumerate() {
        assert_eq!(PartName::parse(name), Some(PartName { stem: "m", number: i + 1, count: files.len() }));
        let len = std::fs::metadata(parts.join(name)).expect("there").len();
        assert!(len <= bytes_max, "{name}: {len}");
        total += len;
        let part = open_gguf(&parts.join(name));
        let number = |key: &str| part.metadata().integer(key, 0, 1000).expect("an integer").expect("there");
        assert_eq!((number("split.no"), number("split.count")), (i as u64, files.len() as u64));
        assert_eq!(part.metadata().len() > 3, i == 0, "{name}: metadata is in the first part");
    }
    assert_eq!(report.out_bytes, total);
    let one = ModelSource::open(&whole.join("m.gguf")).unwrap_or_else(|e| panic!("{e}"));
    let many = ModelSource::open(&parts.join(&files[1])).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((one.config(), one.fingerprint()), (many.config(), many.fingerprint()));
    for (part, layer) in Part::of_model(one.config()) {
        match part.shape(one.config()) {
            PartShape::Vector(_) => assert_eq!(one.vector(part, layer), many.vector(part, layer)),
            PartShape::Matrix(..) => {
                let (a, b) = (one.matrix(part, layer).unwrap(), many.matrix(part, layer).unwrap());
                assert!(a.bytes() == b.bytes(), "{part:?} {layer:?}");
            }
        }
    }
    // Joined again it is the file that was never split.
    for (from, to) in [(whole.join("m.gguf"), "a.gguf"), (parts.join(&files[0]), "b.gguf")] {
        quantize(&from, Target::Q8_0, &dir.join(to)).unwrap_or_else(|e| panic!("{e}"));
    }
    let read = |name: &str| std::fs::read(dir.join(name)).expect("written");
    assert!(read("a.gguf") == read("b.gguf"));
}

#[test]
fn a_file_that_fits_is_not_split() {
    let dir = temp_dir("quantize-split-fits");
    let report = split(&fixture("tiny-qwen2-tied"), &dir.join("m.gguf"), 1 << 30).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((names(&dir), report.parts), (vec!["m.gguf".to_string()], 1));
    assert!(open_gguf(&dir.join("m.gguf")).metadata().get("split.count").is_none());
}

/// The smallest size: a tensor a part, and the notes say that parts are larger.
#[test]
fn a_tensor_is_never_cut() {
    let dir = temp_dir("quantize-split-one");
    let report = split(&fixture("tiny-qwen2-tied"), &dir.join("m.gguf"), 1).unwrap_or_else(|e| panic!("{e}"));
    let source = ModelSource::open(&dir).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(report.parts, Part::of_model(source.config()).count());
    let lens = names(&dir).into_iter().map(|name| std::fs::metadata(dir.join(name)).expect("there").len());
    let largest = lichen_runtime::escape::thousands(lens.max().expect("parts"));
    let note = format!("the longest part has {largest} bytes: no tensor is cut, and the first has the metadata");
    assert!(report.notes.contains(&note), "{:?}", report.notes);
}

#[test]
fn nothing_is_left_when_a_name_is_taken() {
    let dir = temp_dir("quantize-split-taken");
    let (first, second) = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf");
    let whole =
        quantize(&fixture("tiny-qwen2-tied"), Target::Q8_0, &dir.join("w.gguf")).unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(dir.join(second), "mine").expect("temporary file");
    let error = split(&fixture("tiny-qwen2-tied"), &dir.join("m.gguf"), whole.out_bytes * 3 / 4).expect_err("refused");
    assert!(error.to_string().contains(&format!("{second}: already exists")), "{error}");
    assert_eq!(names(&dir), [second, "w.gguf"]);
    assert_eq!(std::fs::read(dir.join(second)).expect("there"), b"mine");
    assert!(!dir.join(first).exists());
}
