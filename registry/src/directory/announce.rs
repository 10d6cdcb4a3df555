use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use tensorbus_transport::{Bus, ControlServer, PublishError, Publisher, RequestError, ServiceError, TopicError};

use super::command::{answer, service};
use super::wire::{
    self, AnnouncedModel, Announcement, MAX_ANNOUNCED_MODELS, MAX_ANNOUNCEMENT_BYTES, MAX_PROGRAM_BYTES,
};
use super::{HEARTBEAT, TICK, random, topic};
use crate::registry::ModelRegistry;

/// A registry that tells the session's bus which models it has. Ends when it is dropped.
///
/// It takes one thread, `tensorbus-tell`, which also answers [commands](super::unload_remotely), and about 130 KB of the
/// session's memory. What has changed is told within a tenth of a second, everything once a second, and a listener that comes
/// late is told everything within a tenth of a second.
#[derive(Debug)]
#[must_use = "a registry is announced until this is dropped"]
pub struct Announcing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    incarnation: u64,
    process: u32,
}

/// Why a registry is not announced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The topic of announcements cannot be opened.
    #[error("the models of this process cannot be announced: {0}")]
    Topic(#[from] TopicError),
    /// The control service for commands cannot be opened.
    #[error("the models of this process cannot be announced: {0}")]
    Service(#[from] ServiceError),
    /// No thread can be started.
    #[error("the models of this process cannot be announced: no thread can be started: {0}")]
    Thread(std::io::Error),
}

impl ModelRegistry {
    /// Tells the session which models this registry has, until what is returned is dropped: [`Directory`](super::Directory)
    /// shows them, and `tensorbus models`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use tensorbus_registry::{Directory, Measured, ModelRegistry, ModelState};
    /// use tensorbus_transport::Bus;
    ///
    /// let bus = Bus::builder().session("doc-announce").open()?;
    /// let registry = ModelRegistry::new();
    /// let _announcing = registry.announce(&bus)?;
    /// let model = registry.get_or_load_blocking("resnet", || std::io::Result::Ok(Measured::new([0_u8; 64], 64)))?;
    ///
    /// let mut directory = Directory::open(&bus)?;
    /// directory.wait_for(Duration::from_secs(10), |processes| {
    ///     processes.iter().flat_map(|process| &process.models).any(|model| model.state == ModelState::InUse)
    /// })?;
    /// let process = &directory.processes()[0];
    /// assert_eq!((process.pid, process.models[0].key.as_str()), (std::process::id(), "resnet"));
    /// # drop(model);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AnnounceError`] if the ports on the bus cannot be had.
    pub fn announce(&self, bus: &Bus) -> Result<Announcing, AnnounceError> {
        let incarnation = random();
        let publisher = topic(bus).max_slot_bytes(2 * MAX_ANNOUNCEMENT_BYTES).publisher()?;
        let server = service(bus, std::process::id(), incarnation).server()?;
        let stop = Arc::new(AtomicBool::new(false));
        let teller = Teller {
            registry: self.clone(),
            publisher,
            server,
            announced: Announcement {
                pid: std::process::id(),
                process: process_mark(),
                incarnation,
                revision: 0,
                farewell: false,
                program: program(),
                budget: self.memory_budget().unwrap_or(0),
                omitted: 0,
                models: Vec::new(),
            },
            told_at: None,
        };
        let theirs = stop.clone();
        let thread = std::thread::Builder::new().name("tensorbus-tell".to_owned());
        let thread = thread.spawn(move || teller.run(&theirs)).map_err(AnnounceError::Thread)?;
        Ok(Announcing { stop, thread: Some(thread), incarnation, process: std::process::id() })
    }
}

impl Announcing {
    /// Which registry it is in the directory.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

impl Drop for Announcing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        // A forked child does not have it.
        if self.process == std::process::id() && thread.join().is_err() {
            tracing::warn!("the thread that announces models had panicked");
        }
    }
}

/// What the thread does.
struct Teller {
    registry: ModelRegistry,
    publisher: Publisher,
    server: ControlServer,
    announced: Announcement,
    told_at: Option<Instant>,
}

impl Teller {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.tell();
            // Who came late is told the last state.
            let _ = self.publisher.wait_for_subscribers(0, std::time::Duration::ZERO);
            match self.server.recv(TICK) {
                Ok(request) => answer(&self.registry, request),
                Err(RequestError::Timeout { .. }) => {}
                Err(error) => {
                    tracing::error!(%error, "the models of this process are not announced any more");
                    return;
                }
            }
        }
        self.announced.models.clear();
        self.announced.farewell = true;
        self.publish();
    }

    /// Tells what has changed, and everything now and then.
    fn tell(&mut self) {
        let models = self.registry.list();
        let omitted = models.len().saturating_sub(MAX_ANNOUNCED_MODELS);
        let models: Vec<AnnouncedModel> = models.iter().take(MAX_ANNOUNCED_MODELS).map(AnnouncedModel::from).collect();
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= HEARTBEAT);
        let has_changed = || models.iter().map(told_at_once).ne(self.announced.models.iter().map(told_at_once));
        if is_due || has_changed() {
            self.announced.models = models;
            self.announced.omitted = omitted as u32;
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.announced.revision += 1;
        self.told_at = Some(Instant::now());
        let bytes = wire::encode_announcement(&self.announced);
        match self.publisher.publish_copy(&bytes, &[bytes.len()]) {
            Ok(_) | Err(PublishError::Undelivered { .. }) => {}
            Err(error) => tracing::warn!(%error, "the models of this process were not announced; will try again"),
        }
    }
}

/// What is not only told with the next heartbeat.
fn told_at_once(model: &AnnouncedModel) -> (&str, u8, bool, u64, u64, u64, &str) {
    let AnnouncedModel { key, state, pinned, bytes, handles, keep_alive_ms, failure, .. } = model;
    (key, *state, *pinned, *bytes, *handles, *keep_alive_ms, failure)
}

/// Tells this process from others that had its id before.
fn process_mark() -> u64 {
    static MARK: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *MARK.get_or_init(random)
}

fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&path).file_name().unwrap_or_default().to_string_lossy();
    wire::cut(&name, MAX_PROGRAM_BYTES)
}
