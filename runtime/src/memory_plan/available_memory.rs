//! What the system can still give: the smaller of free memory and the container's limit.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes this process may still take before the system runs out of memory or its container's limit is reached; `None`
/// where neither is known.
pub fn available_bytes() -> Option<usize> {
    available_under(Path::new("/"))
}

fn available_under(root: &Path) -> Option<usize> {
    let text = |path: &str| fs::read_to_string(root.join(path)).ok();
    let system = text("proc/meminfo").and_then(|t| field(&t, "MemAvailable:")).map(|kib| kib.saturating_mul(1024));
    let groups = text("proc/self/cgroup").unwrap_or_default();
    let container = groups.lines().filter_map(|line| headroom(root, line)).min();
    system.into_iter().chain(container).min()
}

/// What one line of `/proc/self/cgroup` leaves: the limit less what cannot be reclaimed. Limits of every level above
/// count too.
fn headroom(root: &Path, line: &str) -> Option<usize> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (mount, limit, usage, reclaimable) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
    } else if controllers.split(',').any(|c| c == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    } else {
        return None;
    };
    let mount = root.join(mount);
    let mut level = PathBuf::from(path.trim_start_matches('/'));
    let mut least = None;
    loop {
        let read = |name: &str| fs::read_to_string(mount.join(&level).join(name)).ok();
        let number = |name: &str| read(name).and_then(|t| t.trim().parse::<usize>().ok());
        if let (Some(limit), Some(used)) = (number(limit), number(usage)) {
            let cached = read("memory.stat").and_then(|t| field(&t, reclaimable)).unwrap_or(0);
            let left = limit.saturating_sub(used.saturating_sub(cached));
            least = Some(least.map_or(left, |l: usize| l.min(left)));
        }
        if !level.pop() {
            return least;
        }
    }
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        name: &'static str,
        files: &'static [(&'static str, &'static str)],
        want: Option<usize>,
    }

    const CASES: [Case; 4] = [
        Case { name: "nothing known", files: &[], want: None },
        Case {
            name: "no container",
            files: &[("proc/meminfo", "MemTotal: 8 kB\nMemAvailable:   4 kB\n"), ("proc/self/cgroup", "0::/\n")],
            want: Some(4096),
        },
        Case {
            name: "cgroup v2, the limit is one level up",
            files: &[
                ("proc/meminfo", "MemAvailable: 1000 kB\n"),
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("sys/fs/cgroup/a/b/memory.current", "10\n"),
                ("sys/fs/cgroup/a/memory.max", "5000\n"),
                ("sys/fs/cgroup/a/memory.current", "3000\n"),
                ("sys/fs/cgroup/a/memory.stat", "anon 1000\ninactive_file 1500\n"),
            ],
            want: Some(3500),
        },
        Case {
            name: "cgroup v1",
            files: &[
                ("proc/meminfo", "MemAvailable: 1000 kB\n"),
                ("proc/self/cgroup", "9:cpu,memory:/job\n"),
                ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "700\n"),
                ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "900\n"),
                ("sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 300\n"),
            ],
            want: Some(100),
        },
    ];

    #[test]
    fn the_smallest_limit_counts() {
        for (i, case) in CASES.iter().enumerate() {
            let root = std::env::temp_dir().join(format!("lichen-memory-{}-{i}", std::process::id()));
            for (path, text) in case.files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            assert_eq!(available_under(&root), case.want, "{}", case.name);
            let _ = fs::remove_dir_all(&root);
        }
    }
}
