use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};

use super::backend::{BackendChoice, BackendError, Places};
use crate::pool::MemoryFacts;

/// First kernel that can be asked to put pages behind a mapping (`MADV_POPULATE_WRITE`).
const POPULATE_WRITE_SINCE: (u32, u32) = (5, 14);

/// What this machine, and the limits of this process, offer to a bus. Made by [`Capabilities::detect`].
///
/// What cannot be found out is `None`, or an empty list.
///
/// ```
/// use tensorbus_transport::Capabilities;
///
/// let found = Capabilities::detect();
/// assert!(found.page_size >= 4096);
/// if let Some(memory) = &found.shared_memory.facts {
///     println!("{} bytes of shared memory are free", memory.filesystem_free);
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Which backend a bus gets that names none, and why not the others.
    pub backend: Result<BackendChoice, BackendError>,
    /// Where sessions lie by default.
    pub shared_memory: SharedMemory,
    /// When programs get transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// When shared memory that is no file of a tmpfs gets them; `deny` and `force` hold for every tmpfs as well.
    pub shmem_huge_pages: Option<String>,
    /// Free huge pages that were set aside (hugetlb).
    pub hugetlb_free: Option<u64>,
    /// Bytes of a huge page.
    pub huge_page_bytes: Option<u64>,
    /// Bytes of a page.
    pub page_size: usize,
    /// Processors that this process may use.
    pub processors: Option<usize>,
    /// Features of the processor that make inference faster, by the names that Rust has for them.
    pub cpu_features: Vec<&'static str>,
    /// Files that this process may have open (`RLIMIT_NOFILE`). A publisher or subscriber takes about ten.
    pub open_files: ResourceLimit,
    /// Bytes that this process may lock in memory (`RLIMIT_MEMLOCK`).
    pub locked_memory: ResourceLimit,
    /// Release of the Linux kernel, such as `6.8.0-41-generic`.
    pub kernel: Option<String>,
    /// Whether slots can be given their memory by one call (`MADV_POPULATE_WRITE`, since Linux 5.14). Without it,
    /// each page is touched.
    pub populate_write: Option<bool>,
    /// Devices of graphics processors, such as `/dev/nvidia0` and `/dev/dri/renderD128`.
    pub gpus: Vec<PathBuf>,
}

/// The directory that sessions lie in by default, and its file system.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SharedMemory {
    /// The directory: that of [`Capabilities::backend`], or `/dev/shm` if none can be used.
    pub directory: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// Whether this process may make files in it.
    pub writable: bool,
    /// Kind of its file system, such as `tmpfs`.
    pub filesystem: Option<String>,
    /// The file system's option `huge`: `always`, `within_size`, `advise` or `never`. `None` where it has none, which
    /// is `never`.
    pub huge: Option<String>,
    /// Size and free space of the file system, and what memory the machine and this process's container have left.
    pub facts: Option<MemoryFacts>,
}

/// How much of something a process may have. `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ResourceLimit {
    /// The limit that holds.
    pub soft: Option<u64>,
    /// How far the process may raise it.
    pub hard: Option<u64>,
}

impl Capabilities {
    /// Looks at this machine and this process.
    pub fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let huge_pages = |file: &str| selected(&read(&format!("/sys/kernel/mm/transparent_hugepage/{file}"))?);
        let meminfo = read("/proc/meminfo").unwrap_or_default();
        let backend = Places::of_this_machine().choose(None);
        let directory = backend.as_ref().map_or(Path::new("/dev/shm"), |choice| choice.directory.as_path());
        let mounts = read("/proc/self/mounts").unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
        Self {
            shared_memory: SharedMemory::look(directory, &mounts),
            backend,
            huge_pages: huge_pages("enabled"),
            shmem_huge_pages: huge_pages("shmem_enabled"),
            hugetlb_free: meminfo_entry(&meminfo, "HugePages_Free"),
            huge_page_bytes: meminfo_entry(&meminfo, "Hugepagesize"),
            page_size: rustix::param::page_size(),
            processors: std::thread::available_parallelism().ok().map(Into::into),
            cpu_features: cpu_features(),
            open_files: ResourceLimit::of(Resource::Nofile),
            locked_memory: ResourceLimit::of(Resource::Memlock),
            populate_write: kernel.as_deref().and_then(kernel_version).map(|version| version >= POPULATE_WRITE_SINCE),
            kernel,
            gpus: gpus(Path::new("/dev")),
        }
    }
}

impl SharedMemory {
    fn look(directory: &Path, mounts: &str) -> Self {
        let mount = mount_of(mounts, directory);
        Self {
            directory: directory.to_owned(),
            exists: directory.is_dir(),
            writable: rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
            filesystem: mount.map(|mount| mount.filesystem.to_owned()),
            huge: mount.and_then(|mount| mount.option("huge")).map(str::to_owned),
            facts: MemoryFacts::gather(directory).ok(),
        }
    }
}

impl ResourceLimit {
    fn of(resource: Resource) -> Self {
        let limit = getrlimit(resource);
        Self { soft: limit.current, hard: limit.maximum }
    }
}

/// One line of `/proc/self/mounts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mount<'a> {
    filesystem: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn option(&self, name: &str) -> Option<&'a str> {
        self.options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The mount that `directory` lies on, from the text of `/proc/self/mounts`: the deepest one above it, and of several
/// at one place the last, which hides the others.
fn mount_of<'a>(mounts: &'a str, directory: &Path) -> Option<Mount<'a>> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, filesystem, options) = (fields.next()?, fields.next()?, fields.next()?);
        let point = PathBuf::from(unescape(point));
        directory.starts_with(&point).then(|| (point.components().count(), Mount { filesystem, options }))
    });
    mounts.max_by_key(|&(depth, _)| depth).map(|(_, mount)| mount)
}

/// Undoes what the kernel does to blanks, tabs, line ends and backslashes in paths: `\040` and the like.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// The choice that is made in a text such as `always [madvise] never`.
fn selected(choices: &str) -> Option<String> {
    let (_, rest) = choices.split_once('[')?;
    let (choice, _) = rest.split_once(']')?;
    Some(choice.to_owned())
}

/// A number of `/proc/meminfo`, in bytes if the kernel gives it in KiB.
fn meminfo_entry(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim();
    match value.strip_suffix("kB") {
        Some(kib) => kib.trim().parse::<u64>().ok()?.checked_mul(1024),
        None => value.parse().ok(),
    }
}

/// The first two numbers of a kernel's release.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Devices of graphics processors below `/dev`, by name.
fn gpus(dev: &Path) -> Vec<PathBuf> {
    let numbered = |directory: &Path, stem: &str| -> Vec<PathBuf> {
        let is_one = |path: &PathBuf| {
            let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix(stem));
            number.is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
        };
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(is_one).collect()
    };
    let mut found = numbered(dev, "nvidia");
    found.extend(numbered(&dev.join("dri"), "renderD"));
    found.sort();
    found
}

#[allow(unused_macros)]
macro_rules! detected {
    ($detect:ident: $($feature:tt)*) => {
        [$(($feature, std::arch::$detect!($feature))),*].into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    };
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    detected!(is_x86_feature_detected: "sse4.1" "avx" "avx2" "fma" "f16c" "avxvnni" "avx512f" "avx512bw" "avx512vl"
        "avx512vnni" "avx512bf16" "avx512fp16")
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<&'static str> {
    detected!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_that_counts() {
        let mounts = "\
            overlay / overlay rw,relatime 0 0\n\
            devtmpfs /dev devtmpfs rw,mode=755 0 0\n\
            shm /dev/shm tmpfs rw,nosuid,nodev,noexec,size=65536k 0 0\n\
            tmpfs /dev/shm tmpfs rw,relatime,size=24684092k,huge=within_size 0 0\n\
            tmpfs /mnt/two\\040words tmpfs rw,huge=advise 0 0\n\
            short line\n";
        let of = |path: &str| mount_of(mounts, Path::new(path)).unwrap();
        assert_eq!(of("/dev/shm").option("huge"), Some("within_size"));
        assert_eq!(of("/dev/shm/inner").filesystem, "tmpfs");
        assert_eq!(of("/dev/shmoo").filesystem, "devtmpfs");
        assert_eq!(of("/home/a").filesystem, "overlay");
        assert_eq!(of("/mnt/two words").option("huge"), Some("advise"));
        assert_eq!(of("/dev/shm").option("hug"), None);
        assert_eq!(mount_of("", Path::new("/dev/shm")), None);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(selected("always within_size advise [never] deny force\n").as_deref(), Some("never"));
        assert_eq!(selected("always\n"), None);
        let meminfo = "MemTotal:       24684092 kB\nHugePages_Total:       8\nHugePages_Free:        3\n\
            Hugepagesize:       2048 kB\nHugetlb:               0 kB\n";
        assert_eq!(meminfo_entry(meminfo, "HugePages_Free"), Some(3));
        assert_eq!(meminfo_entry(meminfo, "Hugepagesize"), Some(2 << 20));
        assert_eq!(meminfo_entry(meminfo, "Huge"), None);
    }

    #[test]
    fn kernels_are_ordered_by_their_numbers() {
        assert_eq!(kernel_version("6.8.0-41-generic"), Some((6, 8)));
        assert_eq!(kernel_version("5.15.153.1-microsoft-standard-WSL2"), Some((5, 15)));
        assert_eq!(kernel_version("5.9-rc1"), Some((5, 9)));
        assert_eq!(kernel_version("unknown"), None);
        assert!(kernel_version("5.9.1").unwrap() < POPULATE_WRITE_SINCE);
        assert!(kernel_version("5.14.0").unwrap() >= POPULATE_WRITE_SINCE);
    }

    #[test]
    fn only_graphics_processors_are_listed() {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir(dev.path().join("dri")).unwrap();
        for name in ["nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm", "dri/renderD128", "dri/card0", "null"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        let expected = ["dri/renderD128", "nvidia0", "nvidia1"].map(|name| dev.path().join(name));
        assert_eq!(gpus(dev.path()), expected);
        assert_eq!(gpus(&dev.path().join("none")), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_fact() {
        let memory = SharedMemory::look(Path::new("/no/such/directory"), "");
        assert_eq!((memory.exists, memory.writable, memory.facts), (false, false, None));
    }

    #[test]
    fn detects_this_machine() {
        let found = Capabilities::detect();
        assert!(found.shared_memory.exists);
        assert!(found.processors.is_some_and(|processors| processors > 0));
        assert!(found.page_size.is_power_of_two());
    }
}
