//! Who has which models: told on the session's bus by each registry, rebuilt by anyone who listens.
//!
//! `wire` and `known` are pure: bytes to announcements, and announcements to a directory. `announce` and `listen` do the I/O.
//! `service` answers those who do not listen themselves, which are `client`s.

mod announce;
mod client;
mod command;
mod known;
mod listen;
mod service;
#[doc(hidden)]
pub mod wire;

pub use announce::{AnnounceError, Announcing};
pub use client::{DirectoryCallError, DirectoryClient, Listing};
pub use command::{RemoteUnloadError, unload_remotely};
pub use known::{Known, ProcessModels, STALE_AFTER};
pub use listen::{Directory, DirectoryError};
pub use service::{DIRECTORY_SERVICE, DirectoryService};

use std::time::Duration;

/// The topic that registries announce their models on.
pub const MODELS_TOPIC: &str = "tensorbus/models";

/// Registries of a session that can announce themselves at a time.
const MAX_REGISTRIES: usize = 128;
/// Programs of a session that can listen to them at a time.
const MAX_LISTENERS: usize = 64;
/// How soon what has changed is told, and who comes late is told everything.
const TICK: Duration = Duration::from_millis(100);
/// How often a registry announces itself even if nothing has changed.
const HEARTBEAT: Duration = Duration::from_secs(1);

fn topic(bus: &tensorbus_transport::Bus) -> tensorbus_transport::TopicBuilder {
    // A state says everything: an older one that was not read yet may be lost.
    bus.topic(MODELS_TOPIC)
        .depth(2)
        .history(1)
        .max_borrowed(2)
        .max_publishers(MAX_REGISTRIES)
        .max_subscribers(MAX_LISTENERS)
        .spin(Duration::ZERO)
}

/// A number that nobody else has: the seeds of std's hash maps come from the system.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now())
}
