//! Helpers shared by the integration tests: where fixtures live, how numbers are compared, files made by code.

pub mod formats;
pub mod heap;
pub mod models;
pub mod programs;
pub mod sim_disk;

pub use models::fixture;
