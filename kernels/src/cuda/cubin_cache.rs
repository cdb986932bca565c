//! Machine code on disk: a driver needs seconds to make it of PTX, tens of seconds on a small board. A file that is not
//! exactly what was written is as good as none, and a folder that cannot be written is no reason not to run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use std::{fs, io, process};

use super::embed::key;

/// What a file of any version begins with.
const OURS: &str = "lichen cubin ";
/// What this version's begin with.
const MAGIC: &str = concat!("lichen cubin ", env!("CARGO_PKG_VERSION"), "\r\n");

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Unused for so long, a file goes when another is written.
const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Where machine code is cached: `asked`, LICHEN_CACHE_DIR, XDG_CACHE_HOME/lichen or ~/.cache/lichen.
pub(super) fn folder(asked: Option<&Path>, env: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|p| !p.as_os_str().is_empty());
    asked
        .map(Path::to_path_buf)
        .or_else(|| set("LICHEN_CACHE_DIR"))
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("lichen")))
        .or_else(|| set("HOME").map(|p| p.join(".cache").join("lichen")))
}

/// One cached file.
pub(super) struct Entry {
    path: PathBuf,
    key: u128,
}

impl Entry {
    /// `name` is for people who look into the folder.
    pub fn new(folder: &Path, name: &str, key: u128) -> Entry {
        Entry { path: folder.join(format!("{}-{key:032x}.cubin", name.replace('/', "-"))), key }
    }

    /// The machine code, if the file is whole and of this key.
    pub fn read(&self) -> Option<Vec<u8>> {
        let bytes = fs::read(&self.path).ok()?;
        let (head, cubin) = bytes.split_at_checked(MAGIC.len() + 32)?;
        let is_whole = head == self.head(cubin);
        if is_whole {
            self.mark_used();
        }
        is_whole.then(|| cubin.to_vec())
    }

    /// Its time of change says when it was last used, to the day: an SD card is written to no more than that.
    fn mark_used(&self) {
        if fs::metadata(&self.path).is_ok_and(|m| age(&m) > DAY) {
            let _ = fs::File::options().write(true).open(&self.path).and_then(|f| f.set_modified(SystemTime::now()));
        }
    }

    /// Whole or not at all, also when two programs write it at once.
    pub fn write(&self, cubin: &[u8]) -> io::Result<()> {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.with_extension(format!("{}-{number}.tmp", process::id()));
        let written = fs::write(&temporary, [&self.head(cubin), cubin].concat());
        written.and_then(|()| fs::rename(&temporary, &self.path)).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
    }

    fn head(&self, cubin: &[u8]) -> Vec<u8> {
        [MAGIC.as_bytes(), &self.key.to_le_bytes(), &key(&[cubin]).to_le_bytes()].concat()
    }
}

/// Removes what is of another version of this program, was not used for a long time, or was left half written. A file
/// that does not begin as ours do stays, whatever its name.
pub(super) fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // Not of what a link leads to.
        let Some(age) = entry.metadata().ok().filter(fs::Metadata::is_file).map(|m| age(&m)) else { continue };
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let old = match extension {
            "cubin" => KEPT,
            // Another program may be writing it.
            "tmp" => DAY,
            _ => continue,
        };
        let Ok(head) = head_of(&path) else { continue };
        let is_other_version = extension == "cubin" && !head.starts_with(MAGIC.as_bytes());
        if head.starts_with(OURS.as_bytes()) && (is_other_version || age > old) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A clock that stood wrong makes a file young.
fn age(metadata: &fs::Metadata) -> Duration {
    metadata.modified().ok().and_then(|t| t.elapsed().ok()).unwrap_or_default()
}

fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, MAGIC.len() as u64), &mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("lichen-cubin-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = scratch("read");
        let entry = Entry::new(&folder, "matmul/decode", key(&[b"a"]));
        assert_eq!(entry.read(), None);
        entry.write(b"code").unwrap();
        assert_eq!(entry.read().as_deref(), Some(b"code".as_slice()));
        assert_eq!(Entry::new(&folder, "matmul/decode", key(&[b"b"])).read(), None);
        let left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_damaged_file_is_none() {
        let folder = scratch("damaged");
        let entry = Entry::new(&folder, "m", key(&[b"a"]));
        entry.write(b"machine code").unwrap();
        let whole = fs::read(&entry.path).unwrap();
        for cut in [0, 5, MAGIC.len() + 31, whole.len() - 1] {
            fs::write(&entry.path, &whole[..cut]).unwrap();
            assert_eq!(entry.read(), None, "cut to {cut}");
        }
        for flipped in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[flipped] ^= 1;
            fs::write(&entry.path, bytes).unwrap();
            assert_eq!(entry.read(), None, "byte {flipped}");
        }
        // Another's file under this name.
        let other = Entry { path: entry.path.clone(), key: key(&[b"b"]) };
        other.write(b"machine code").unwrap();
        assert_eq!(entry.read(), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_folder_does_not_grow() {
        let folder = scratch("sweep");
        let [used, unused] = ["used", "unused"].map(|name| Entry::new(&folder, name, key(&[b"a"])));
        used.write(b"code").unwrap();
        unused.write(b"code").unwrap();
        let ours = format!("{OURS}0.0.1\r\nold");
        let others = [
            ("other.cubin", "not ours", 100),
            ("notes.txt", ours.as_str(), 100),
            ("young.1-1.tmp", MAGIC, 0),
            ("cut.cubin", "lichen", 100),
        ];
        let gone = [("older.cubin", ours.as_str(), 0), ("left.1-2.tmp", MAGIC, 2)];
        let aged = |path: &Path, days: u32| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - days * DAY).unwrap();
        };
        for (name, text, days) in others.iter().chain(&gone) {
            fs::write(folder.join(name), text).unwrap();
            aged(&folder.join(name), *days);
        }
        aged(&used.path, 91);
        aged(&unused.path, 91);
        assert!(used.read().is_some());
        sweep(&folder);
        let kept = others.map(|(name, ..)| folder.join(name)).into_iter().chain([used.path]);
        let mut kept: Vec<PathBuf> = kept.collect();
        let mut found: Vec<PathBuf> = fs::read_dir(&folder).unwrap().flatten().map(|e| e.path()).collect();
        kept.sort();
        found.sort();
        assert_eq!(found, kept);
        sweep(&folder.join("none"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let file = scratch("file");
        fs::write(&file, b"").unwrap();
        assert!(Entry::new(&file.join("below"), "m", 1).write(b"code").is_err());
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn the_folder_that_is_named_first_counts() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        let home = |name: &str| (name == "HOME").then(|| "/h".into());
        let empty = |name: &str| Some(PathBuf::from(if name == "HOME" { "/h" } else { "" }));
        assert_eq!(folder(Some(Path::new("/asked")), &all), Some("/asked".into()));
        assert_eq!(folder(None, &all), Some("/LICHEN_CACHE_DIR".into()));
        assert_eq!(folder(None, &home), Some("/h/.cache/lichen".into()));
        assert_eq!(folder(None, &empty), Some("/h/.cache/lichen".into()));
        assert_eq!(folder(None, &|_| None), None);
    }
}
