//! Pools and connections that belong to no member, living or dead: what a process left that was killed after its
//! registration was gone and before its files were.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::service::PREFIX;
use crate::pool::POOL_SUFFIX;

/// Ending of the file of a connection, which is named after both its ports.
const CONNECTION_SUFFIX: &str = ".connection";
/// Ending of the file by which a node keeps track of a port, and which is made before the port's files.
pub(super) const TAG_SUFFIX: &str = ".port_tag";
/// Bit of a connection's mode that it gets when it is made.
const READABLE: u32 = 0o400;

/// In a turn: nobody is just making or removing a port. Returns how many files were removed.
pub(super) fn remove_stale_files(directory: &Path) -> usize {
    let stale = stale_files(directory);
    stale.iter().filter(|path| remove(path)).count()
}

/// In a turn. Removes the connections of a dead node that were never finished, by it or by the other side: iceoryx2 cannot open
/// them, and leaves a port that has one registered for ever.
///
/// Connections are made without a turn. Should the other side be alive and just at it, it ends up with a connection to nobody,
/// which it has anyway.
pub(super) fn remove_half_made_connections(directory: &Path, node: u128) {
    let tags = names(&directory.join("nodes").join(node.to_string())).unwrap_or_default();
    let ports = tags.iter().filter_map(|tag| port_of_tag(tag)).collect();
    for path in connections_of(directory, &ports) {
        let is_made = path.metadata().map_or(true, |found| found.permissions().mode() & READABLE != 0);
        if !is_made {
            remove(&path);
        }
    }
}

/// In a turn. Removes all connections of ports that have no node any more. Who is at the other side keeps what it has mapped, and
/// lets go of it when it sees that the port is not registered any more.
pub(super) fn remove_connections_of(directory: &Path, ports: &BTreeSet<u128>) {
    for path in connections_of(directory, ports) {
        remove(&path);
    }
}

fn connections_of(directory: &Path, ports: &BTreeSet<u128>) -> Vec<PathBuf> {
    let is_one = |name: &String| {
        name.ends_with(CONNECTION_SUFFIX)
            && ports_of_file(name).is_some_and(|of| of.iter().any(|port| ports.contains(port)))
    };
    names(directory).unwrap_or_default().into_iter().filter(is_one).map(|name| directory.join(name)).collect()
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
    fn connections_of_the_dead_that_were_never_finished_go() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("nodes/17")).unwrap();
        let file = |name: &str, mode| {
            let path = directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("nodes/17/tb_100.port_tag", 0o400);
        for (name, mode) in [("tb_a_100_1.connection", 0o200), ("tb_a_2_100.connection", 0o200)] {
            file(name, mode);
        }
        let kept = [("tb_a_100_3.connection", 0o600), ("tb_a_4_5.connection", 0o200), ("tb_a_100.pool", 0o200)];
        kept.iter().for_each(|(name, mode)| file(name, *mode));
        remove_half_made_connections(directory.path(), 17);
        let mut left = names(directory.path()).unwrap();
        left.sort();
        assert_eq!(left, ["nodes", "tb_a_100.pool", "tb_a_100_3.connection", "tb_a_4_5.connection"]);
    }

    #[test]
    fn a_session_without_members_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tb_ab_9.pool"), "").unwrap();
        assert_eq!(remove_stale_files(directory.path()), 0);
    }
}
