//! Removes what a process left that was killed while it joined, opened, or left.
//!
//! Called in a turn, after the one before did not end: no living process is in the middle of a change, so whatever is
//! not complete belongs to a dead one. What is complete is left to iceoryx2, which knows the dead by their locks.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use iceoryx2::prelude::CallbackProgression;
use iceoryx2::service::Service;
use iceoryx2::service::internal::ServiceInternal;
use iceoryx2::service::static_config::messaging_pattern::MessagingPattern;

use super::service::{self, SessionService};
use super::shield::shield;

/// Ending of the file by which iceoryx2 knows whether a node lives; two more go with it.
const MONITOR: &str = ".node_monitor";
const MONITOR_FILES: [&str; 3] = ["", "_owner_lock", "_context"];
/// Mode of a monitor's files while they are being made.
const MONITOR_IN_MAKING: u32 = 0o200;
/// Ending and final mode of the file that describes a service.
const SERVICE: &str = ".service";
const SERVICE_MADE: u32 = 0o400;

pub(super) fn remove_half_made(directory: &Path) {
    remove_half_made_nodes(&directory.join("nodes"));
    remove_half_made_services(directory);
}

/// A node has a directory of details and three files that tell whether it lives. The details come first and go first.
fn remove_half_made_nodes(nodes: &Path) {
    let entries = names(nodes);
    let ids: BTreeSet<&str> = entries.iter().map(|name| node_id(name)).collect();
    for id in ids {
        let monitor = |ending: &str| nodes.join(format!("{}{id}{MONITOR}{ending}", service::PREFIX));
        let is_made = |path: &Path| mode(path).is_some_and(|mode| mode != MONITOR_IN_MAKING);
        let lives = MONITOR_FILES.iter().all(|ending| is_made(&monitor(ending)));
        let details = nodes.join(id);
        let (made, in_making): (Vec<_>, Vec<_>) =
            names(&details).into_iter().partition(|name| mode(&details.join(name)) == Some(SERVICE_MADE));
        let is_described = made.iter().any(|name| name.ends_with(".details"));
        if lives && is_described {
            // Marks of services and ports. iceoryx2 does not see those, and cannot remove a directory that holds one.
            in_making.iter().for_each(|name| remove_file(&details.join(name)));
        } else {
            // The details last: as long as they are there, whoever repairs after us looks at this node again.
            for ending in MONITOR_FILES {
                remove_file(&monitor(ending));
            }
            let _ = std::fs::remove_dir_all(&details);
        }
    }
}

/// A service has a description, and a file in which its users are registered. The description comes first and goes last.
fn remove_half_made_services(directory: &Path) {
    let services = directory.join("services");
    for name in names(&services).iter().filter(|name| name.ends_with(SERVICE)) {
        let path = services.join(name);
        if mode(&path) != Some(SERVICE_MADE) {
            remove_file(&path);
        }
    }
    let Some(config) = service::config(directory) else { return };
    let mut without_users = Vec::new();
    let _ = shield(|| {
        SessionService::list(&config, |found| {
            if found.dynamic_details.is_none_or(|users| users.nodes.is_empty()) {
                without_users.push(found.static_details);
            }
            CallbackProgression::Continue
        })
    });
    for found in without_users {
        let pattern = match found.messaging_pattern() {
            MessagingPattern::PublishSubscribe(_) => {
                iceoryx2::service::messaging_pattern::MessagingPattern::PublishSubscribe
            }
            MessagingPattern::RequestResponse(_) => {
                iceoryx2::service::messaging_pattern::MessagingPattern::RequestResponse
            }
            _ => continue,
        };
        // SAFETY: nobody uses the service: no node is registered in it, and none is just about to be, as that takes the turn.
        let removed =
            shield(|| unsafe { SessionService::__internal_force_remove_service(found.name(), &config, pattern) });
        if !matches!(removed, Ok(Ok(_))) {
            tracing::warn!(service = %found.name(), ?removed, "could not remove a service that nobody uses");
        }
    }
}

/// `17` of `17`, `tb_17.node_monitor` and `tb_17.node_monitor_context`.
fn node_id(name: &str) -> &str {
    let name = name.strip_prefix(service::PREFIX).unwrap_or(name);
    name.split_once('.').map_or(name, |(id, _)| id)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn mode(path: &Path) -> Option<u32> {
    std::fs::symlink_metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}

fn remove_file(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not remove what a dead process left");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_is_complete_stays() {
        let directory = tempfile::tempdir().unwrap();
        let nodes = directory.path().join("nodes");
        let services = directory.path().join("services");
        let file = |path: &Path, mode: u32| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let monitor = |id: &str, ending: &str, mode| file(&nodes.join(format!("tb_{id}.node_monitor{ending}")), mode);
        let details = |id: &str, mode| file(&nodes.join(id).join("tb_node.details"), mode);
        // 1 is complete but for the mark of a port.
        details("1", 0o400);
        file(&nodes.join("1").join("tb_8.port_tag"), 0o400);
        file(&nodes.join("1").join("tb_9.port_tag"), 0o200);
        let _ = MONITOR_FILES.map(|ending| monitor("1", ending, 0o600));
        // 2 has only details, 3 only a monitor, 4 lacks one of its files, 5 is being made, 6 has unfinished details.
        details("2", 0o400);
        let _ = MONITOR_FILES.map(|ending| monitor("3", ending, 0o600));
        details("4", 0o400);
        monitor("4", "_context", 0o400);
        details("5", 0o400);
        let _ = MONITOR_FILES.map(|ending| monitor("5", ending, 0o200));
        details("6", 0o600);
        file(&services.join("tb_abc.service"), 0o600);
        remove_half_made(directory.path());
        let mut left = names(&nodes);
        left.sort();
        assert_eq!(names(&nodes.join("1")).len(), 2);
        assert!(nodes.join("1").join("tb_8.port_tag").exists());
        assert_eq!(left, ["1", "tb_1.node_monitor", "tb_1.node_monitor_context", "tb_1.node_monitor_owner_lock"]);
        assert!(names(&services).is_empty());
    }
}
