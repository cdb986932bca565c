//! Helpers shared by the integration tests: where fixtures live, how numbers are compared, files made by code.

pub mod formats;
pub mod heap;

use std::path::PathBuf;

/// `tests/fixtures`.
pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}
pub mod models;
