//! Training data: rows of token ids and labels from JSONL files.
