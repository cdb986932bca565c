//! The input rail of a Jetson: an INA3221, which JetPack 4 shows as an IIO device and later ones as a hardware monitor.

use std::path::{Path, PathBuf};

use super::{entries, integer, name_in};

/// A kilowatt, in mV, mA or mW: ten times what any board of this kind takes.
const ABSURD: i64 = 1_000_000;

/// The rail that feeds the board.
#[derive(Clone, Debug)]
pub struct Rail {
    name: String,
    files: Files,
}

#[derive(Clone, Debug)]
enum Files {
    Power { milliwatts: PathBuf },
    VoltageAndCurrent { millivolts: PathBuf, milliamperes: PathBuf },
}

impl Rail {
    /// The first rail called `.._IN`: `POM_5V_IN` of a Nano, `VDD_IN` of Xavier NX and Orin Nano. Boards without one (the
    /// Nano 2GB has no sensor, AGX boards measure parts only) have no known input power, and a sum of parts is not it.
    pub fn find(root: &Path) -> Option<Rail> {
        let drivers = root.join("sys/bus/i2c/drivers");
        jetpack_4(&drivers.join("ina3221x")).or_else(|| jetpack_5(&drivers.join("ina3221")))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn power_mw(&self) -> Option<u32> {
        let read = |path: &Path| integer(path).filter(|value| (0..ABSURD).contains(value));
        let milliwatts = match &self.files {
            Files::Power { milliwatts } => read(milliwatts)?,
            Files::VoltageAndCurrent { millivolts, milliamperes } => read(millivolts)? * read(milliamperes)? / 1000,
        };
        (0..ABSURD).contains(&milliwatts).then_some(milliwatts as u32)
    }
}

fn jetpack_4(driver: &Path) -> Option<Rail> {
    let devices = chips(driver).into_iter().flat_map(|chip| entries(&chip, |name| name.starts_with("iio:device")));
    let rails = devices.flat_map(|device| {
        (0..3).filter_map(move |n| {
            let files = Files::Power { milliwatts: device.join(format!("in_power{n}_input")) };
            Some(Rail { name: name_in(&device.join(format!("rail_name_{n}")))?, files })
        })
    });
    rails.into_iter().find(is_input)
}

fn jetpack_5(driver: &Path) -> Option<Rail> {
    let monitors = chips(driver).into_iter().flat_map(|chip| entries(&chip.join("hwmon"), |n| n.starts_with("hwmon")));
    let rails = monitors.flat_map(|monitor| {
        // Inputs past the third are shunt voltages and their sum.
        (1..=3).filter_map(move |n| {
            let files = Files::VoltageAndCurrent {
                millivolts: monitor.join(format!("in{n}_input")),
                milliamperes: monitor.join(format!("curr{n}_input")),
            };
            Some(Rail { name: name_in(&monitor.join(format!("in{n}_label")))?, files })
        })
    });
    rails.into_iter().find(is_input)
}

fn is_input(rail: &Rail) -> bool {
    rail.name.to_ascii_uppercase().ends_with("_IN")
}

/// Devices of the driver at the addresses of the chip, 0x40 to 0x43: `6-0040`.
fn chips(driver: &Path) -> Vec<PathBuf> {
    entries(driver, |name| name.split_once("-004").is_some_and(|(bus, digit)| !bus.is_empty() && digit.len() == 1))
}
