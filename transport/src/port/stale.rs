//! Pools and connections that belong to no member, living or dead: what a process left that was killed after its
//! registration was gone and before its files were.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::service::PREFIX;
use crate::pool::POOL_SUFFIX;

/// Ending of the file of a connection, which is named after both its ports.
const CONNECTION_SUFFIX: &str = ".connection";
/// Ending of the file by which a node keeps track of a port, and which is made before the port's files.
const TAG_SUFFIX: &str = ".port_tag";

/// In a turn: nobody is just making or removing a port. Returns how many files were removed.
pub(super) fn remove_stale_files(directory: &Path) -> usize {
    let stale = stale_files(directory);
    stale.iter().filter(|path| remove(path)).count()
}

fn stale_files(directory: &Path) -> Vec<PathBuf> {
    let nodes = directory.join("nodes");
    let Ok(entries) = std::fs::read_dir(&nodes) else { return Vec::new() };
    let mut ports = BTreeSet::new();
    for node in entries {
        let tags = node.and_then(|node| if node.file_type()?.is_dir() { names(&node.path()) } else { Ok(Vec::new()) });
        // What cannot be looked at may list anything.
        let Ok(tags) = tags else { return Vec::new() };
        ports.extend(tags.iter().filter_map(|tag| port_of_tag(tag)));
    }
    let files = names(directory).unwrap_or_default();
    files
        .into_iter()
        .filter(|name| ports_of_file(name).is_some_and(|of| of.iter().all(|port| !ports.contains(port))))
        .map(|name| directory.join(name))
        .collect()
}

fn port_of_tag(name: &str) -> Option<u128> {
    name.strip_prefix(PREFIX)?.strip_suffix(TAG_SUFFIX)?.parse().ok()
}

/// The ports that a pool or connection belongs to; `None` if the file is something else.
fn ports_of_file(name: &str) -> Option<Vec<u128>> {
    let (stem, count) = match (name.strip_suffix(POOL_SUFFIX), name.strip_suffix(CONNECTION_SUFFIX)) {
        (Some(stem), _) => (stem, 1),
        (_, Some(stem)) => (stem, 2),
        _ => return None,
    };
    let ports: Vec<u128> = stem.rsplit('_').take(count).map_while(|port| port.parse().ok()).collect();
    (ports.len() == count).then_some(ports)
}

fn names(directory: &Path) -> std::io::Result<Vec<String>> {
    std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn remove(path: &Path) -> bool {
    std::fs::remove_file(path)
        .inspect_err(
            |error| tracing::warn!(path = %path.display(), %error, "could not remove what a dead process left"),
        )
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_no_member_are_stale() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("nodes/17")).unwrap();
        let file = |name: &str| std::fs::write(directory.path().join(name), "").unwrap();
        for name in ["nodes/tb_17.node_monitor", "nodes/17/tb_100.port_tag", "nodes/17/tb_node.details"] {
            file(name);
        }
        let kept = ["tb_ab_100.pool", "tb_ab_100_9.connection", "tb_ab_9_100.connection", "tb_ab.pool", "tb_9.event"];
        kept.into_iter().for_each(file);
        ["tb_ab_9.pool", "tb_ab_9_8.connection"].into_iter().for_each(file);
        assert_eq!(remove_stale_files(directory.path()), 2);
        assert!(kept.iter().all(|name| directory.path().join(name).exists()));
        assert_eq!(remove_stale_files(directory.path()), 0);
    }

    #[test]
    fn a_session_without_members_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tb_ab_9.pool"), "").unwrap();
        assert_eq!(remove_stale_files(directory.path()), 0);
    }
}
