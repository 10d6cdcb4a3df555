use std::path::PathBuf;

use super::MemoryFacts;

/// Why there is no memory for a publisher's slots, for a blob, or for the small files of a topic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The file system that holds the session has too little room.
    #[error(
        "{needed} bytes are needed, {} has {free} free ({} missing); use fewer or smaller slots or weights, delete what fills \
         it, or give the session another directory", directory.display(), needed.saturating_sub(*free)
    )]
    FilesystemFull {
        /// Bytes of the pool or blob.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The session's directory.
        directory: PathBuf,
    },
    /// The machine has too little memory available.
    #[error(
        "{needed} bytes of memory are needed, the machine has {available} available ({} missing); use fewer or \
         smaller slots or weights, or stop other programs", needed.saturating_sub(*available)
    )]
    MemoryShort {
        /// Bytes of the pool or blob.
        needed: u64,
        /// `MemAvailable` of the machine.
        available: u64,
    },
    /// The control group (container) of this process may use too little memory.
    #[error(
        "{needed} bytes of memory are needed, the container's limit leaves {available} ({} missing); use fewer or \
         smaller slots or weights, or raise the limit", needed.saturating_sub(*available)
    )]
    ContainerLimit {
        /// Bytes of the pool or blob.
        needed: u64,
        /// Bytes up to the limit.
        available: u64,
    },
    /// The session's quota leaves too little.
    #[error(
        "{needed} bytes are needed, the session uses {used} of its quota of {quota} ({} missing); use fewer or smaller \
         slots or weights, let publishers leave or others drop tensors and weights, or open the session's first bus with more `quota_bytes`",
        used.saturating_add(*needed).saturating_sub(*quota)
    )]
    Quota {
        /// Bytes that are asked for.
        needed: u64,
        /// Bytes that pools and blobs of the session use already.
        used: u64,
        /// Bytes that all pools and blobs of the session may use.
        quota: u64,
    },
    /// A pool has at least one slot, and a slot at least one byte.
    #[error(
        "a pool of {slots} slots of {slot_bytes} bytes is empty or too large to address; check slots and slot_bytes"
    )]
    Size {
        /// Slots asked for.
        slots: usize,
        /// Bytes of a slot.
        slot_bytes: usize,
    },
    /// The operating system refused at the last step.
    #[error("memory of {needed} bytes could not be prepared: {reason}")]
    Prepare {
        /// Bytes of the pool or blob.
        needed: u64,
        /// What the operating system said.
        reason: std::io::Error,
    },
}

/// Whether a pool of `needed` bytes can be filled without SIGBUS and without an out-of-memory kill.
pub(crate) fn admit(needed: u64, facts: &MemoryFacts) -> Result<(), PoolError> {
    // A tmpfs without a bound of its own says that its size is 0; memory bounds it.
    if facts.filesystem_size > 0 && needed > facts.filesystem_free {
        return Err(PoolError::FilesystemFull {
            needed,
            free: facts.filesystem_free,
            directory: facts.directory.clone(),
        });
    }
    if !facts.in_memory {
        return Ok(());
    }
    if let Some(available) = facts.memory_available.filter(|&available| needed > available) {
        return Err(PoolError::MemoryShort { needed, available });
    }
    if let Some(available) = facts.container_available.filter(|&available| needed > available) {
        return Err(PoolError::ContainerLimit { needed, available });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> MemoryFacts {
        MemoryFacts {
            directory: "/dev/shm/tb-0-test".into(),
            filesystem_size: 1000,
            filesystem_free: 800,
            in_memory: true,
            memory_available: Some(600),
            container_available: Some(400),
        }
    }

    #[test]
    fn the_tightest_bound_decides() {
        assert!(admit(400, &facts()).is_ok());
        assert!(matches!(admit(401, &facts()), Err(PoolError::ContainerLimit { available: 400, .. })));
        assert!(matches!(admit(601, &facts()), Err(PoolError::MemoryShort { available: 600, .. })));
        assert!(matches!(admit(801, &facts()), Err(PoolError::FilesystemFull { free: 800, .. })));
    }

    #[test]
    fn on_disk_only_the_file_system_bounds() {
        assert!(admit(800, &MemoryFacts { in_memory: false, ..facts() }).is_ok());
        assert!(admit(801, &MemoryFacts { in_memory: false, ..facts() }).is_err());
    }

    #[test]
    fn a_tmpfs_without_a_size_is_bounded_by_memory() {
        let unlimited = MemoryFacts { filesystem_size: 0, filesystem_free: 0, ..facts() };
        assert!(admit(400, &unlimited).is_ok());
        assert!(matches!(admit(401, &unlimited), Err(PoolError::ContainerLimit { .. })));
    }

    #[test]
    fn the_message_says_how_much_is_missing() {
        let message = admit(1000, &facts()).unwrap_err().to_string();
        assert!(message.contains("200 missing") && message.contains("800 free"), "{message}");
    }
}
