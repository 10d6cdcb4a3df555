use std::io;
use std::path::{Path, PathBuf};

/// `f_type` of a tmpfs, from `linux/magic.h`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// How much memory there is for the slots of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryFacts {
    /// The directory that was looked at.
    pub directory: PathBuf,
    /// Bytes of the file system that holds it.
    pub filesystem_size: u64,
    /// Bytes free in it for this user.
    pub filesystem_free: u64,
    /// Whether the file system lies in memory (tmpfs).
    pub in_memory: bool,
    /// Memory that programs can get without swapping: `MemAvailable`. `None` where the kernel does not tell.
    pub memory_available: Option<u64>,
    /// Memory that the tightest control group of this process leaves. `None` without a limit.
    pub container_available: Option<u64>,
}

impl MemoryFacts {
    /// Looks at the file system of `directory`, the machine's memory and this process's control groups.
    ///
    /// # Errors
    /// If `directory` cannot be looked at.
    pub fn gather(directory: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statfs(directory)?;
        let block = stat.f_bsize as u64;
        // The field's type differs between C libraries; the magic numbers fit 32 bits.
        let kind = (stat.f_type as u64) & 0xffff_ffff;
        Ok(Self {
            directory: directory.to_owned(),
            filesystem_size: (stat.f_blocks as u64).saturating_mul(block),
            filesystem_free: (stat.f_bavail as u64).saturating_mul(block),
            in_memory: kind == TMPFS_MAGIC || kind == RAMFS_MAGIC,
            memory_available: std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text)),
            container_available: std::fs::read_to_string("/proc/self/cgroup")
                .ok()
                .and_then(|text| container_available(&text, Path::new("/sys/fs/cgroup"))),
        })
    }
}

/// `MemAvailable` in bytes, from the text of `/proc/meminfo`.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least that any group on the way up to the root leaves, in bytes; from the text of `/proc/self/cgroup`.
///
/// Inside a container the path that the kernel prints may not exist under the mount: missing groups set no limit.
fn container_available(cgroup: &str, mount: &Path) -> Option<u64> {
    let unified = cgroup.lines().find_map(|line| line.strip_prefix("0::")).map(|path| (mount.to_owned(), path));
    let legacy = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then(|| (mount.join("memory"), path))
    });
    unified
        .into_iter()
        .chain(legacy)
        .flat_map(|(root, path)| {
            let leaf = root.join(path.trim_start_matches('/'));
            leaf.ancestors().take_while(|group| group.starts_with(&root)).map(Path::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|group| group_available(&group))
        .min()
}

/// What one group leaves: its limit less what it uses, where clean file pages count as free.
fn group_available(group: &Path) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let reclaimable = stat
        .lines()
        .find_map(|line| line.strip_prefix("total_inactive_file ").or_else(|| line.strip_prefix("inactive_file ")))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn reads_mem_available() {
        let text = "MemTotal:       24684092 kB\nMemFree:  1 kB\nMemAvailable:   23955348 kB\n";
        assert_eq!(mem_available(text), Some(23_955_348 * 1024));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let mount = tempfile::tempdir().unwrap();
        let group = |path: &str, files: &[(&str, &str)]| {
            let directory = mount.path().join(path);
            fs::create_dir_all(&directory).unwrap();
            for (name, text) in files {
                fs::write(directory.join(name), text).unwrap();
            }
        };
        group("a", &[("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", "inactive_file 300\n")]);
        group("a/b", &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        group("memory/c", &[("memory.limit_in_bytes", "500\n"), ("memory.usage_in_bytes", "100\n")]);
        assert_eq!(container_available("0::/a/b\n", mount.path()), Some(400));
        assert_eq!(container_available("4:memory:/c\n0::/a/b\n", mount.path()), Some(400));
        assert_eq!(container_available("4:cpu,memory:/c\n", mount.path()), Some(400));
        assert_eq!(container_available("0::/not/there\n", mount.path()), None);
    }

    #[test]
    fn gathers_from_this_machine() {
        let facts = MemoryFacts::gather(&std::env::temp_dir()).unwrap();
        assert!(facts.filesystem_size >= facts.filesystem_free);
        assert!(MemoryFacts::gather(Path::new("/no/such/directory")).is_err());
    }
}
