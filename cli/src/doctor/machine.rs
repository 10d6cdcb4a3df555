//! What the machine offers, judged.

use indicatif::HumanBytes;
use tensorbus::{Capabilities, MemoryFacts, ResourceLimit, SharedMemory};

use super::check::{Check, Status};
use crate::output;

/// Shared memory below this is that of a container which nobody gave more (64 MiB), or not much better.
const SMALL: u64 = 128 << 20;
/// Less free memory than this is soon used up by a few publishers of camera frames.
const SCARCE: u64 = 64 << 20;
/// Less than this is as good as none: a session alone takes some hundred KiB.
const NOTHING: u64 = 1 << 20;
/// Files that a process with some hundred publishers and subscribers has open, with room for its own.
const OPEN_FILES: u64 = 4096;

pub(super) fn checks(machine: &Capabilities) -> Vec<Check> {
    let mut checks = vec![shared_memory(&machine.shared_memory)];
    checks.extend(machine.shared_memory.facts.as_ref().and_then(memory));
    checks.extend(huge_pages(machine));
    checks.extend(kernel(machine));
    checks.extend([open_files(machine.open_files), processor(machine), graphics(machine)]);
    checks
}

fn shared_memory(memory: &SharedMemory) -> Check {
    const NAME: &str = "shared memory";
    let directory = memory.directory.display();
    let Some(facts) = memory.facts.as_ref().filter(|_| memory.exists) else {
        return Check::ok(NAME, format!("{directory} is not there"))
            .but(Status::Fail, format!("make it: `mkdir -p {directory}`"));
    };
    let kind = memory.filesystem.as_deref().unwrap_or("unknown file system");
    // A tmpfs without a limit reports no size at all.
    let unlimited = facts.filesystem_size == 0;
    let room = if unlimited {
        "of unlimited size".to_owned()
    } else {
        format!("{} of {} free", HumanBytes(facts.filesystem_free), HumanBytes(facts.filesystem_size))
    };
    let check = Check::ok(NAME, format!("{directory} ({kind}), {room}"));
    if !memory.writable {
        let check = Check { fact: format!("{}, but not writable", check.fact), ..check };
        return check.but(
            Status::Fail,
            format!("let this user write to it: not mounted read-only, and `chmod 1777 {directory}` as root"),
        );
    }
    if unlimited {
        return check.but(
            Status::Warn,
            format!("what is free cannot be told; give it a size: `mount -o remount,size=50% {directory}` as root"),
        );
    }
    if !facts.in_memory {
        return check.but(
            Status::Warn,
            "sessions lie on disk: correct, but slower; mount a tmpfs: `mount -t tmpfs -o size=50%,mode=1777 tmpfs \
             /dev/shm` as root",
        );
    }
    if facts.filesystem_size < SMALL {
        return check.but(
            if facts.filesystem_free < NOTHING { Status::Fail } else { Status::Warn },
            format!(
                "too small for many tensors: start the container with `--shm-size=1g` (Docker, Podman) or mount an \
                 emptyDir with medium Memory there (Kubernetes); elsewhere `mount -o remount,size=1g {directory}` as \
                 root"
            ),
        );
    }
    let full = format!("see what fills it: `du -sh {directory}/*`, and what of it is left behind: below");
    match facts.filesystem_free {
        free if free < NOTHING => check.but(Status::Fail, full),
        free if free < SCARCE => check.but(Status::Warn, full),
        _ => check,
    }
}

/// What the machine and the container leave; nothing to tell about memory if sessions lie on disk.
fn memory(facts: &MemoryFacts) -> Option<Check> {
    let available = facts.memory_available?;
    let mut fact = format!("{} available", HumanBytes(available));
    if let Some(container) = facts.container_available.filter(|&container| container < available) {
        fact.push_str(&format!(", {} of it within this container's limit", HumanBytes(container)));
    }
    let check = Check::ok("memory", fact);
    if facts.container_available.is_some_and(|container| container < SCARCE) {
        return Some(check.but(Status::Warn, "raise the container's memory limit: slots count against it"));
    }
    if available < SCARCE {
        return Some(check.but(Status::Warn, "stop programs that need much memory, or use fewer and smaller slots"));
    }
    Some(check)
}

/// Huge pages for slots: the mount's option decides, unless the kernel's says `deny` or `force` for all.
fn huge_pages(machine: &Capabilities) -> Option<Check> {
    let memory = &machine.shared_memory;
    if !memory.facts.as_ref().is_some_and(|facts| facts.in_memory) {
        return None;
    }
    let kernel = machine.shmem_huge_pages.as_deref()?;
    let mount = memory.huge.as_deref().unwrap_or("never");
    let directory = memory.directory.display();
    let check = Check::ok("huge pages", format!("{directory} has huge={mount}, the kernel says {kernel}"));
    if kernel == "force" || (kernel != "deny" && matches!(mount, "always" | "within_size")) {
        return Some(check);
    }
    let advice = if kernel == "deny" {
        "large tensors are read faster from huge pages: `echo never > /sys/kernel/mm/transparent_hugepage/\
         shmem_enabled` as root, then mount /dev/shm with huge=within_size"
            .to_owned()
    } else {
        format!(
            "large tensors are read faster from huge pages: `mount -o remount,huge=within_size {directory}` as root"
        )
    };
    Some(check.but(Status::Info, advice))
}

fn kernel(machine: &Capabilities) -> Option<Check> {
    let release = machine.kernel.as_deref()?;
    let check = Check::ok("kernel", format!("Linux {release}, pages of {}", HumanBytes(machine.page_size as u64)));
    Some(match machine.populate_write {
        Some(false) => {
            check.but(Status::Info, "with Linux 5.14 or later, publishers start faster (MADV_POPULATE_WRITE)")
        }
        _ => check,
    })
}

fn open_files(limit: ResourceLimit) -> Check {
    let number = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let check =
        Check::ok("open files", format!("{} a process, can be raised to {}", number(limit.soft), number(limit.hard)));
    match limit.soft {
        Some(soft) if soft < OPEN_FILES => {
            let raised = limit.hard.map_or(65_536, |hard| hard.min(65_536));
            let advice = if raised > soft {
                format!("a publisher or subscriber takes about ten: `ulimit -n {raised}` before the program starts")
            } else {
                "a publisher or subscriber takes about ten: raise the hard limit, in /etc/security/limits.conf, LimitNOFILE= of a \
                 systemd unit, or `--ulimit nofile=65536` of a container"
                    .to_owned()
            };
            check.but(Status::Warn, advice)
        }
        _ => check,
    }
}

fn processor(machine: &Capabilities) -> Check {
    let cores =
        machine.processors.map_or("unknown number of cores".to_owned(), |cores| output::count(cores, "core", "cores"));
    let features = machine.cpu_features.join(" ");
    let check = Check::ok("processor", if features.is_empty() { cores } else { format!("{cores}, with {features}") });
    if machine.processors == Some(1) {
        return check
            .but(Status::Info, "with one core, a receiver that spins keeps the sender from its work: use spin 0");
    }
    check
}

fn graphics(machine: &Capabilities) -> Check {
    let names: Vec<_> = machine.gpus.iter().map(|path| path.display().to_string()).collect();
    Check::ok("graphics", if names.is_empty() { "no GPU; none is needed".to_owned() } else { names.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    const GIB: u64 = 1 << 30;

    /// A machine that has everything.
    fn machine() -> Capabilities {
        let mut machine = Capabilities::detect();
        let mut facts = MemoryFacts::gather(Path::new("/")).unwrap();
        (facts.filesystem_size, facts.filesystem_free, facts.in_memory) = (8 * GIB, 7 * GIB, true);
        (facts.memory_available, facts.container_available) = (Some(16 * GIB), None);
        let memory = &mut machine.shared_memory;
        memory.directory = PathBuf::from("/dev/shm");
        (memory.exists, memory.writable, memory.facts) = (true, true, Some(facts));
        (memory.filesystem, memory.huge) = (Some("tmpfs".to_owned()), Some("within_size".to_owned()));
        machine.shmem_huge_pages = Some("never".to_owned());
        (machine.open_files.soft, machine.open_files.hard) = (Some(65_536), Some(1 << 20));
        (machine.kernel, machine.populate_write) = (Some("6.8.0".to_owned()), Some(true));
        machine.processors = Some(8);
        machine
    }

    fn changed(change: impl FnOnce(&mut Capabilities)) -> Vec<Check> {
        let mut machine = machine();
        change(&mut machine);
        checks(&machine)
    }

    /// Status and advice of the check of this name.
    fn of(checks: &[Check], name: &str) -> (Status, String) {
        let check = checks.iter().find(|check| check.name == name).unwrap();
        (check.status, check.advice.clone().unwrap_or_default())
    }

    fn facts(machine: &mut Capabilities) -> &mut MemoryFacts {
        machine.shared_memory.facts.as_mut().unwrap()
    }

    #[test]
    fn a_good_machine_gets_no_advice() {
        let checks = checks(&machine());
        assert!(checks.iter().all(|check| check.status == Status::Ok && check.advice.is_none()), "{checks:?}");
        assert_eq!(checks[0].fact, "/dev/shm (tmpfs), 7.00 GiB of 8.00 GiB free");
    }

    #[test]
    fn the_shared_memory_of_a_container_is_too_small() {
        let found =
            changed(|machine| (facts(machine).filesystem_size, facts(machine).filesystem_free) = (64 << 20, 64 << 20));
        let (status, advice) = of(&found, "shared memory");
        assert!(status == Status::Warn && advice.contains("--shm-size=1g"), "{advice}");
        let found = changed(|machine| (facts(machine).filesystem_size, facts(machine).filesystem_free) = (64 << 20, 0));
        assert_eq!(of(&found, "shared memory").0, Status::Fail);
    }

    #[test]
    fn shared_memory_that_cannot_be_used_fails() {
        for change in [
            (|memory: &mut SharedMemory| memory.writable = false) as fn(&mut SharedMemory),
            |memory| (memory.exists, memory.facts) = (false, None),
            |memory| memory.facts.as_mut().unwrap().filesystem_free = 1000,
        ] {
            let (status, advice) = of(&changed(|machine| change(&mut machine.shared_memory)), "shared memory");
            assert!(status == Status::Fail && !advice.is_empty());
        }
        let (status, advice) = of(&changed(|machine| facts(machine).in_memory = false), "shared memory");
        assert!(status == Status::Warn && advice.contains("on disk"), "{advice}");
        let (status, advice) = of(&changed(|machine| facts(machine).filesystem_size = 0), "shared memory");
        assert!(status == Status::Warn && advice.contains("size="), "{advice}");
    }

    #[test]
    fn little_memory_is_a_warning() {
        let found = changed(|machine| facts(machine).container_available = Some(10 << 20));
        let (status, advice) = of(&found, "memory");
        assert!(status == Status::Warn && advice.contains("container"), "{advice}");
        assert_eq!(of(&changed(|machine| facts(machine).memory_available = Some(1)), "memory").0, Status::Warn);
    }

    #[test]
    fn few_open_files_are_a_warning() {
        let (status, advice) = of(&changed(|machine| machine.open_files.soft = Some(1024)), "open files");
        assert!(status == Status::Warn && advice.contains("ulimit -n 65536"), "{advice}");
        let found = changed(|machine| (machine.open_files.soft, machine.open_files.hard) = (Some(1024), Some(1024)));
        assert!(of(&found, "open files").1.contains("LimitNOFILE"));
        let found = changed(|machine| (machine.open_files.soft, machine.open_files.hard) = (None, None));
        assert_eq!(of(&found, "open files").0, Status::Ok);
    }

    #[test]
    fn what_would_be_faster_is_a_hint() {
        for huge in [None, Some("never"), Some("advise")] {
            let found = changed(|machine| machine.shared_memory.huge = huge.map(str::to_owned));
            let (status, advice) = of(&found, "huge pages");
            assert!(status == Status::Info && advice.contains("remount,huge=within_size"), "{advice}");
        }
        let found = changed(|machine| machine.shmem_huge_pages = Some("deny".to_owned()));
        assert!(of(&found, "huge pages").1.contains("shmem_enabled"));
        assert_eq!(of(&changed(|machine| machine.populate_write = Some(false)), "kernel").0, Status::Info);
        assert_eq!(of(&changed(|machine| machine.processors = Some(1)), "processor").0, Status::Info);
    }
}
