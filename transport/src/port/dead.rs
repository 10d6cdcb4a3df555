//! Finds the members of a session that died, tells their deaths, and removes what they left.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use iceoryx2::config::Config;
use iceoryx2::node::{DeadNodeView, Node, NodeState, NodeView};
use iceoryx2::prelude::CallbackProgression;

use super::death_log::{DeathLog, Record};
use super::ghosts::remove_all_ghosts;
use super::node::{NodeError, new_node};
use super::service::{self, SessionService};
use super::shield::shield;
use super::stale::{remove_half_made_connections, remove_stale_files};
use super::turn::{Turn, is_between_turns};
use super::{repair, wake};
use crate::pool::{has_unused_blobs, has_unused_rings};

/// For another thread of this process that is cleaning another session: iceoryx2 lets only one clean at a time.
const PATIENCE_WITH_THREADS: Duration = Duration::from_millis(20);

/// What was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cleaned {
    /// Members that were cleaned up, and that could not be.
    pub(crate) removed: usize,
    pub(crate) failed: usize,
    /// Files of no member at all.
    pub(crate) stale_files: usize,
}

/// Removes what dead processes left; waits for its turn no longer than that.
pub(super) fn remove_dead(directory: &Path, longest_wait: Duration) -> Result<Cleaned, NodeError> {
    let config = service::config(directory).ok_or(NodeError::PathTooLong)?;
    // Most of the time nobody has died, which can be seen without a turn.
    let nobody_died = dead_nodes(&config).is_ok_and(|dead| dead.is_empty()) && is_between_turns(directory);
    if nobody_died && !has_unused_blobs(directory) && !has_unused_rings(directory) {
        return Ok(Cleaned::default());
    }
    let _turn = Turn::take_within(directory, longest_wait)?;
    let cleaned = remove_dead_nodes(directory, &config)?;
    if cleaned.removed > 0 {
        // A member for a moment: whoever cleans need not be one, and topics are looked at by members only.
        remove_all_ghosts(directory, &new_node(&config)?);
    }
    Ok(cleaned)
}

/// The same, and files that belong to no member. In a turn.
pub(super) fn remove_all(directory: &Path) -> Result<Cleaned, NodeError> {
    let config = service::config(directory).ok_or(NodeError::PathTooLong)?;
    let cleaned = remove_dead_nodes(directory, &config)?;
    wake::remove_deserted(directory);
    if has_remains(&config) {
        repair::remove_half_made(directory);
    }
    Ok(Cleaned { stale_files: remove_stale_files(directory), ..cleaned })
}

fn remove_dead_nodes(directory: &Path, config: &Config) -> Result<Cleaned, NodeError> {
    let dead = dead_nodes(config)?;
    if let Err(error) = tell(directory, &dead) {
        tracing::warn!(%error, "could not tell others of dead processes");
    }
    if !dead.is_empty() {
        // Before they are gone: whoever is killed meanwhile is followed by one who finds them and does it again.
        wake::wake_all(directory);
    }
    let mut cleaned = Cleaned::default();
    for node in dead {
        remove_half_made_connections(directory, node.id().value());
        match shield(|| node.blocking_remove_stale_resources(PATIENCE_WITH_THREADS)) {
            Ok(Ok(())) => cleaned.removed += 1,
            Ok(Err(error)) => {
                tracing::debug!(?error, "could not remove what a dead process left");
                cleaned.failed += 1;
            }
            Err(panicked) => return Err(NodeError::Failed(panicked.0)),
        }
    }
    if cleaned.removed > 0 {
        wake::remove_deserted(directory);
    }
    Ok(cleaned)
}

/// In a turn: whether there are parts of nodes that are neither alive nor can be cleaned up.
fn has_remains(config: &Config) -> bool {
    let mut found = false;
    let _ = shield(|| {
        Node::<SessionService>::list(config, |state| {
            found |= match state {
                NodeState::Alive(_) => false,
                NodeState::Dead(node) => node.details().is_none(),
                _ => true,
            };
            CallbackProgression::Continue
        })
    });
    found
}

fn dead_nodes(config: &Config) -> Result<Vec<DeadNodeView<SessionService>>, NodeError> {
    let mut dead = Vec::new();
    let listed = shield(|| {
        Node::<SessionService>::list(config, |state| {
            match state {
                // Without details iceoryx2 would look for its parts in another place than this session.
                NodeState::Dead(node) if node.details().is_some() => dead.push(node),
                _ => {}
            }
            CallbackProgression::Continue
        })
    });
    match listed {
        Ok(Ok(())) => Ok(dead),
        Ok(Err(error)) => Err(NodeError::Failed(format!("{error:?}"))),
        Err(panicked) => Err(NodeError::Failed(panicked.0)),
    }
}

/// Writes each death down once, before anything is removed: if we die before all is removed, the next one finds the
/// record and does not tell it again.
fn tell(directory: &Path, dead: &[DeadNodeView<SessionService>]) -> std::io::Result<()> {
    if dead.is_empty() {
        return Ok(());
    }
    let log = DeathLog::open_or_create(directory)?;
    let mut by_process: BTreeMap<u32, Vec<u128>> = BTreeMap::new();
    for node in dead {
        if let Some(details) = node.details() {
            by_process.entry(details.process_id().value() as u32).or_default().push(node.id().value());
        }
    }
    let known: Vec<u128> = log.records()?.iter().map(|record| record.node).collect();
    log.append(&new_records(&by_process, &known))
}

/// One process may have been several members; the first of them tells.
fn new_records(by_process: &BTreeMap<u32, Vec<u128>>, known: &[u128]) -> Vec<Record> {
    let mut records = Vec::new();
    for (&pid, nodes) in by_process {
        let mut tells = !nodes.iter().any(|node| known.contains(node));
        for &node in nodes.iter().filter(|node| !known.contains(node)) {
            records.push(Record { node, pid, tells });
            tells = false;
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_is_told_once_however_often_it_is_found() {
        let dead = BTreeMap::from([(7, vec![70, 71]), (8, vec![80])]);
        let first = new_records(&dead, &[]);
        let expected = [(70, 7, true), (71, 7, false), (80, 8, true)];
        assert_eq!(first, expected.map(|(node, pid, tells)| Record { node, pid, tells }));
        // Who cleaned died after one record of two, or after all of them.
        assert_eq!(new_records(&dead, &[70]), [first[1], first[2]]);
        assert_eq!(new_records(&dead, &[70, 71, 80]), []);
        // The process id comes again, for another process.
        assert!(new_records(&BTreeMap::from([(7, vec![72])]), &[70, 71, 80])[0].tells);
    }
}
