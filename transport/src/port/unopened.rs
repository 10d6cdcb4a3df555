//! Connections that could not be opened, for want of descriptors or memory.
//!
//! iceoryx2 opens connections when the ports of a topic change, tries each once, and only logs that it failed: both sides
//! would go on, and one of them never get a message. Here the port notes it, and has it tried again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iceoryx2::port::{DegradationAction, DegradationCause, DegradationInfo};
use iceoryx2::service::internal::ServiceInternal;
use iceoryx2::service::port_factory::PortFactory as _;
use iceoryx2::service::service_hash::ServiceHash;

use super::node::{NodeError, new_node};
use super::service::{self, SessionService};
use super::shield::shield;
use super::topic::PubSub;
use super::turn::Turn;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the turn, while a message may wait.
const PATIENCE: Duration = Duration::from_millis(5);
/// Descriptors that a try takes at a time, and some more.
const DESCRIPTORS: usize = 12;

#[derive(Debug)]
pub(super) struct Unopened {
    /// Whether there are any. Set by iceoryx2's port, under the same lock as all the rest.
    any: Arc<AtomicBool>,
    tried: Option<Instant>,
    directory: PathBuf,
    topic: ServiceHash,
}

impl Unopened {
    pub(super) fn new(directory: &Path, topic: &PubSub) -> Self {
        Self { any: Arc::default(), tried: None, directory: directory.to_owned(), topic: *topic.service_hash() }
    }

    /// What iceoryx2 calls when it fails.
    pub(super) fn note(&self) -> impl Fn(DegradationCause, &DegradationInfo) -> DegradationAction + Send + use<> {
        let any = self.any.clone();
        move |cause, ports| {
            if !matches!(cause, DegradationCause::FailedToEstablishConnection) {
                return DegradationAction::Warn;
            }
            let (publisher, subscriber) = (ports.sender_port_id, ports.receiver_port_id);
            tracing::warn!(publisher, subscriber, "a connection could not be opened; it is tried again");
            any.store(true, Ordering::Relaxed);
            DegradationAction::Ignore
        }
    }

    #[inline]
    pub(super) fn are_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Has iceoryx2 open them when the port updates its connections next.
    #[cold]
    pub(super) fn try_again(&mut self) {
        if self.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return;
        }
        match self.change_topic() {
            // If it fails again, that is noted again.
            Ok(()) => self.any.store(false, Ordering::Relaxed),
            Err(error) => tracing::debug!(?error, "connections cannot be tried again just now"),
        }
        self.tried = Some(Instant::now());
    }

    /// Every port looks at its connections again when iceoryx2 has removed a node from its topic, even one that never was there.
    fn change_topic(&self) -> Result<(), NodeError> {
        let io = |error: io::Error| NodeError::Failed(error.to_string());
        // A node that is made with too few of them would be left half-made.
        let enough: io::Result<Vec<_>> = (0..DESCRIPTORS).map(|_| File::open(&self.directory)).collect();
        drop(enough.map_err(io)?);
        let config = service::config(&self.directory).ok_or(NodeError::PathTooLong)?;
        let _turn = Turn::take_within(&self.directory, PATIENCE)?;
        let nobody = *new_node(&config)?.id();
        let removed = shield(|| SessionService::__internal_remove_node_from_service(&nobody, &self.topic, &config));
        match removed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(NodeError::Failed(format!("{error:?}"))),
            Err(panicked) => Err(NodeError::Failed(panicked.0)),
        }
    }
}
