//! What must hold for any bytes in place of a file of rows: shared by the mutation tests and the fuzz target.

use std::path::Path;

use lichen_trainer::data::{DataOptions, Dataset, Sample, TextEncoder, IGNORED};

/// The rows of a file are refused in a sentence, or keep the promises of the module. Returns whether they were accepted.
pub fn rows(path: &Path, encoder: TextEncoder, vocab_size: usize, options: &DataOptions) -> bool {
    let dataset = match Dataset::open(path, Some(encoder), vocab_size, options) {
        Ok(dataset) => dataset,
        Err(error) => {
            let (message, path) = (error.message(), path.display().to_string());
            assert!(message.starts_with(&path) && message.len() < 1000 + path.len(), "{message}");
            return false;
        }
    };
    let counts = dataset.counts();
    let n_refused = counts.bad + counts.dropped + counts.without_labels + counts.torn.is_some() as usize;
    assert_eq!(counts.rows, counts.usable + n_refused);
    assert!(counts.notes().iter().all(|note| note.text().len() < 2000), "{:?}", counts.notes());
    let read = |sample: Result<Sample, _>| sample.unwrap_or_else(|e: lichen_runtime::Error| panic!("{e}"));
    let mut all: Vec<Sample> = (0..dataset.n_train()).map(|i| read(dataset.train(0, i))).collect();
    all.extend((0..dataset.n_eval()).map(|i| read(dataset.eval(i))));
    assert_eq!(all.len(), counts.samples);
    assert_eq!(all.iter().map(|s| s.ids.len() as u64).sum::<u64>(), counts.tokens);
    for sample in &all {
        assert!(sample.ids.len() == sample.labels.len() && sample.ids.len() <= options.max_seq);
        assert!(sample.ids.iter().all(|&id| (id as usize) < vocab_size) && sample.labels[0] == IGNORED);
        assert!(sample.labels.iter().any(|&label| label != IGNORED));
        assert!(sample.labels.iter().all(|&label| label == IGNORED || (label >= 0 && (label as usize) < vocab_size)));
    }
    true
}
