//! What a board is and does: its file of settings, its temperature and power.

pub mod device_config;
pub mod telemetry;
