//! Training data: rows of token ids and labels from JSONL files.
pub struct Sample {
    pub ids: Vec<u32>,
    pub labels: Vec<i32>,
    pub line: usize,
}
