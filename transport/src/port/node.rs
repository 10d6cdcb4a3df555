use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use iceoryx2::config::Config;
use iceoryx2::node::{Node as IoxNode, NodeBuilder, NodeState, NodeView};
use iceoryx2::prelude::{CallbackProgression, SignalHandlingMode};
use iceoryx2::service::Service;
use iceoryx2::service::service_name::ServiceName;
use iceoryx2::service::static_config::messaging_pattern::MessagingPattern;

use super::dead::{Cleaned, remove_all, remove_dead};
use super::death_log::DeathLog;
use super::ghosts::remove_all_ghosts;
use super::service::{self, SessionService};
use super::shield::shield;
use super::tended::Tended;
use super::topic::OpenTopic;
use super::turn::{LONGEST_WAIT, Part, Turn, TurnError};
use super::wake::Ringer;
use crate::os::Forked;
use crate::pool::{self, PoolError};

/// This process's membership in a session.
#[derive(Debug)]
pub(crate) struct Node {
    node: Part<IoxNode<SessionService>>,
    directory: PathBuf,
    ringer: Arc<Ringer>,
    /// Topics that ports of this bus have open.
    topics: Mutex<HashMap<String, Weak<OpenTopic>>>,
    tended: Arc<Tended>,
    cleaned: Cleaned,
}

/// Why a session cannot be joined or looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeError {
    PathTooLong,
    Forked,
    Failed(String),
}

impl From<TurnError> for NodeError {
    fn from(error: TurnError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Forked> for NodeError {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

impl Node {
    /// Joins the session whose objects lie in `directory`, and removes what dead processes left there.
    pub(crate) fn join(directory: &Path) -> Result<Self, NodeError> {
        let config = service::config(directory).ok_or(NodeError::PathTooLong)?;
        let _turn = Turn::take(directory)?;
        DeathLog::open_or_create(directory)
            .map_err(|error| NodeError::Failed(format!("the file of deaths: {error}")))?;
        let cleaned = remove_all(directory).unwrap_or_default();
        let node = new_node(&config)?;
        let ringer = Ringer::new().map_err(|error| NodeError::Failed(format!("a socket: {error}")))?;
        Ok(Self {
            node: Part::new(node, directory),
            directory: directory.to_owned(),
            ringer: Arc::new(ringer),
            topics: Mutex::default(),
            tended: Arc::default(),
            cleaned,
        })
    }

    pub(super) fn topics(&self) -> &Mutex<HashMap<String, Weak<OpenTopic>>> {
        &self.topics
    }

    pub(super) fn ringer(&self) -> &Arc<Ringer> {
        &self.ringer
    }

    pub(crate) fn get(&self) -> Result<&IoxNode<SessionService>, Forked> {
        self.node.get()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The ports of this member.
    pub(crate) fn tended(&self) -> &Arc<Tended> {
        &self.tended
    }

    /// What was removed when this process joined.
    pub(crate) fn cleaned(&self) -> Cleaned {
        self.cleaned
    }

    /// Removes what dead processes left.
    pub(crate) fn remove_dead(&self) -> Result<Cleaned, NodeError> {
        self.node.get()?;
        let _turn = Turn::take(&self.directory)?;
        let cleaned = remove_all(&self.directory)?;
        remove_all_ghosts(&self.directory, self.node.get()?);
        Ok(cleaned)
    }

    /// What a service thread does, which neither owns nor borrows the node: waits for its turn no longer than `patience`.
    pub(crate) fn janitor(&self, patience: Duration) -> impl Fn() + Send + 'static {
        let (directory, tended) = (self.directory.clone(), self.tended.clone());
        move || {
            if let Err(error) = remove_dead(&directory, patience) {
                tracing::debug!(?error, "could not look for dead processes; the next tick tries again");
            }
            tended.tend();
        }
    }

    /// In a turn: whether the session's quota leaves `needed` bytes, if need be after the dead are cleaned up.
    pub(crate) fn admit_to_quota(&self, needed: u64) -> Result<(), PoolError> {
        pool::admit_to_quota(&self.directory, needed, || {
            if let Err(error) = self.remove_dead() {
                tracing::warn!(?error, "could not clean up before the quota is asked again");
            }
        })
    }

    /// Fixes the session's quota unless somebody did before. Returns the one that holds.
    pub(crate) fn set_quota(&self, bytes: u64) -> Result<u64, NodeError> {
        let _turn = Turn::take(&self.directory)?;
        pool::set_quota(&self.directory, bytes).map_err(|error| NodeError::Failed(error.to_string()))
    }

    /// The session's quota and what of it is used, after the dead are cleaned up. `None` without a quota.
    pub(crate) fn quota(&self) -> Result<Option<(u64, u64)>, NodeError> {
        let failed = |error: std::io::Error| NodeError::Failed(error.to_string());
        let _turn = Turn::take(&self.directory)?;
        let Some(quota) = pool::quota(&self.directory).map_err(failed)? else { return Ok(None) };
        self.remove_dead()?;
        Ok(Some((quota, pool::used(&self.directory).map_err(failed)?)))
    }

    /// Process ids of the members that live and of those that died.
    pub(crate) fn members(&self) -> Result<(Vec<u32>, Vec<u32>), NodeError> {
        self.node.get()?;
        members_of(&self.directory)
    }
}

/// In a turn.
pub(super) fn new_node(config: &Config) -> Result<IoxNode<SessionService>, NodeError> {
    let builder = || NodeBuilder::new().config(config).signal_handling_mode(SignalHandlingMode::Disabled);
    shield(|| builder().create::<SessionService>())
        .map_err(|panicked| NodeError::Failed(panicked.0))?
        .map_err(|error| NodeError::Failed(format!("{error:?}")))
}

/// Names of all services of a session that have such a pattern.
pub(super) fn services(
    config: &Config,
    is_wanted: impl Fn(&MessagingPattern) -> bool,
) -> Result<Vec<ServiceName>, NodeError> {
    let mut names = Vec::new();
    let listed = shield(|| {
        SessionService::list(config, |details| {
            if is_wanted(details.static_details.messaging_pattern()) {
                names.push(*details.static_details.name());
            }
            CallbackProgression::Continue
        })
    });
    match listed {
        Ok(Ok(())) => Ok(names),
        Ok(Err(error)) => Err(NodeError::Failed(format!("{error:?}"))),
        Err(panicked) => Err(NodeError::Failed(panicked.0)),
    }
}

/// Process ids of a session's members that live and of those that died, for whom need not be one of them.
pub(crate) fn members_of(directory: &Path) -> Result<(Vec<u32>, Vec<u32>), NodeError> {
    let config = service::config(directory).ok_or(NodeError::PathTooLong)?;
    let (mut alive, mut dead) = (Vec::new(), Vec::new());
    let pid = |details: &Option<iceoryx2::node::NodeDetails>| {
        details.as_ref().map(|details| details.process_id().value() as u32)
    };
    let listed = shield(|| {
        IoxNode::<SessionService>::list(&config, |state| {
            match state {
                NodeState::Alive(view) => alive.extend(pid(view.details())),
                NodeState::Dead(view) => dead.extend(pid(view.details())),
                _ => {}
            }
            CallbackProgression::Continue
        })
    });
    match listed {
        Ok(Ok(())) => Ok((alive, dead)),
        Ok(Err(error)) => Err(NodeError::Failed(format!("{error:?}"))),
        Err(panicked) => Err(NodeError::Failed(panicked.0)),
    }
}

/// Whoever joins, opens, or leaves removes what the dead left, if that is possible.
pub(super) fn clean(directory: &Path) {
    if let Err(error) = remove_dead(directory, LONGEST_WAIT) {
        tracing::debug!(?error, "could not remove what dead processes left");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.node.get().is_ok() {
            clean(&self.directory);
        }
    }
}
