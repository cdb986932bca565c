//! What a board says of itself: temperature, input power, its name, this process's memory. Reads sysfs below a root
//! folder, so that tests can build one. What is not there, or cannot be true, is `None` and never an error.

mod power;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use power::Rail;

/// What the hottest zone may read. Suspended zones of Tegra read -256 C, broken ones 2^31 millidegrees; silicon that runs is
/// between these.
const MILLIDEGREES: std::ops::RangeInclusive<i64> = -40_000..=150_000;
/// sysfs files of one number, and `statm`.
const VALUE_BYTES_MAX: usize = 128;

/// The sensors of a board, found once.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// In the order of their paths.
    zones: Vec<Zone>,
    rail: Option<Rail>,
    board: Option<String>,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Of the hottest zone.
    pub temperature_c: Option<f32>,
    /// Drawn by the whole board, at its input.
    pub power_mw: Option<u32>,
}

#[derive(Clone, Debug)]
struct Zone {
    name: String,
    /// Millidegrees.
    temp: PathBuf,
}

impl Telemetry {
    /// Looks for sensors below `root`, which is `/` on a board.
    pub fn new(root: &Path) -> Telemetry {
        Telemetry { zones: zones(root), rail: Rail::find(root), board: board(root) }
    }

    /// Reads the sensors. Files are read into the stack: nothing is allocated, so a training step may ask.
    pub fn sample(&self) -> Sample {
        Sample {
            temperature_c: self.hottest().map(|(_, celsius)| celsius),
            power_mw: self.rail.as_ref().and_then(Rail::power_mw),
        }
    }

    /// Name and temperature in C of the hottest zone.
    pub fn hottest(&self) -> Option<(&str, f32)> {
        let read = |zone: &Zone| integer(&zone.temp).filter(|t| MILLIDEGREES.contains(t));
        let readings = self.zones.iter().filter_map(|zone| Some((zone, read(zone)?)));
        readings.max_by_key(|(_, t)| *t).map(|(zone, t)| (zone.name.as_str(), t as f32 / 1000.0))
    }

    /// Name of the rail that power is read from: `POM_5V_IN`, `VDD_IN`.
    pub fn rail(&self) -> Option<&str> {
        self.rail.as_ref().map(Rail::name)
    }

    /// What the device tree calls the board: `NVIDIA Jetson Nano Developer Kit`.
    pub fn board(&self) -> Option<&str> {
        self.board.as_deref()
    }
}

/// This process's resident size now, mapped weights included. Allocates nothing.
pub fn rss_bytes() -> Option<u64> {
    static PAGE_BYTES: OnceLock<Option<u64>> = OnceLock::new();
    let mut buffer = [0; VALUE_BYTES_MAX];
    let pages: u64 = text(Path::new("/proc/self/statm"), &mut buffer)?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page_bytes = (*PAGE_BYTES.get_or_init(|| page_bytes(&fs::read("/proc/self/auxv").ok()?)))?;
    pages.checked_mul(page_bytes)
}

/// The page size in an auxiliary vector: pairs of machine words, of which the one with key 6 (`AT_PAGESZ`) holds it. Kernels
/// for aarch64 come with pages of 4, 16 and 64 KiB.
fn page_bytes(auxv: &[u8]) -> Option<u64> {
    const WORD: usize = size_of::<usize>();
    const AT_PAGESZ: usize = 6;
    let word = |bytes: &[u8]| usize::from_ne_bytes(bytes.try_into().expect("a word"));
    let mut pairs = auxv.chunks_exact(2 * WORD).map(|pair| (word(&pair[..WORD]), word(&pair[WORD..])));
    pairs.find(|(key, _)| *key == AT_PAGESZ).map(|(_, bytes)| bytes as u64)
}

/// The thermal zones that measure a temperature.
fn zones(root: &Path) -> Vec<Zone> {
    let folders = entries(&root.join("sys/class/thermal"), |name| name.starts_with("thermal_zone"));
    let zones = folders.into_iter().map(|folder| Zone {
        name: name_in(&folder.join("type")).unwrap_or_else(|| "unnamed".into()),
        temp: folder.join("temp"),
    });
    // The power chip of a Nano reads 100 C for ever.
    zones.filter(|zone| !zone.name.to_ascii_lowercase().contains("pmic")).collect()
}

fn board(root: &Path) -> Option<String> {
    ["sys/firmware/devicetree/base/model", "proc/device-tree/model"].iter().find_map(|path| name_in(&root.join(path)))
}

/// What a folder holds that `is_wanted` by name, in order. Nothing where there is no folder.
fn entries(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted));
    paths.sort();
    paths
}

/// A name, which device trees end with a NUL; `None` where it is empty.
fn name_in(path: &Path) -> Option<String> {
    let mut buffer = [0; VALUE_BYTES_MAX];
    let name = text(path, &mut buffer)?.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!name.is_empty()).then(|| name.to_string())
}

fn integer(path: &Path) -> Option<i64> {
    let mut buffer = [0; VALUE_BYTES_MAX];
    text(path, &mut buffer)?.trim_matches(|c: char| c == '\0' || c.is_whitespace()).parse().ok()
}

/// The text of a small file; `None` where it does not fit the buffer.
fn text<'a>(path: &Path, buffer: &'a mut [u8]) -> Option<&'a str> {
    let mut file = File::open(path).ok()?;
    let mut n = 0;
    loop {
        match file.read(&mut buffer[n..]) {
            Ok(0) if n == buffer.len() => return None,
            Ok(0) => return std::str::from_utf8(&buffer[..n]).ok(),
            Ok(more) => n += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
