use std::time::{Duration, Instant};

use tensorbus_transport::{Bus, CallError, ControlClient, ServiceError};

use super::known::ProcessModels;
use super::service::service;
use super::wire::{self, Announcement, DirectoryDecodeError, GET, Heard, LIST, Page, Query, WATCH};
use crate::error::{KeyError, check_key};

/// How often a list is begun again that changes while it is read.
const TRIES: usize = 4;

/// Asks the daemon of a session for its directory of models: one call instead of the tenth of a second that a
/// [`Directory`](super::Directory) listens until it knows everybody. Without a daemon the calls end with
/// [`CallError::NoServer`] at once: open a directory then.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tensorbus_registry::DirectoryClient;
/// use tensorbus_transport::Bus;
///
/// let bus = Bus::builder().session("doc-directory-client").open()?;
/// let mut client = DirectoryClient::open(&bus)?;
/// match client.list(Duration::from_secs(1)) {
///     Ok(listing) => println!("{} processes have models", listing.processes.len()),
///     Err(error) if error.is_no_server() => println!("no daemon"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DirectoryClient {
    client: ControlClient,
}

/// What a daemon knows.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Listing {
    /// Registries and their models, by process id.
    pub processes: Vec<ProcessModels>,
    /// Registries that exist and were not heard: their processes hang, or the daemon has just begun.
    pub silent: usize,
    /// Another number whenever anything has changed, for [`DirectoryClient::watch`].
    pub generation: u64,
}

/// Why a daemon does not say which models there are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryCallError {
    /// The key is not one that a model can have.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The service cannot be used.
    #[error("the daemon of the session cannot be asked: {0}")]
    Service(#[from] ServiceError),
    /// It did not answer.
    #[error("the daemon of the session did not answer: {0}")]
    Call(#[from] CallError),
    /// Its answer makes no sense.
    #[error("the daemon of the session answered what this program does not understand: {0}")]
    Answer(#[from] DirectoryDecodeError),
}

impl DirectoryCallError {
    /// Whether the session has no daemon.
    pub fn is_no_server(&self) -> bool {
        matches!(self, Self::Call(CallError::NoServer { .. }))
    }
}

impl DirectoryClient {
    /// A client, whether there is a daemon or not. It stays usable when the daemon goes and another one comes.
    ///
    /// # Errors
    /// [`DirectoryCallError::Service`] if there are too many clients, or the service cannot be opened.
    pub fn open(bus: &Bus) -> Result<Self, DirectoryCallError> {
        Ok(Self { client: service(bus).client()? })
    }

    /// All models of the session.
    ///
    /// # Errors
    /// [`DirectoryCallError`] if there is no daemon, or it does not answer within `timeout`.
    pub fn list(&mut self, timeout: Duration) -> Result<Listing, DirectoryCallError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut tries = 0;
        'again: loop {
            tries += 1;
            let mut query = Query { what: LIST, ..Query::default() };
            let mut registries: Vec<Heard> = Vec::new();
            let mut generation = None;
            loop {
                let page = self.ask(&query, left(deadline, timeout))?;
                let changed = generation.replace(page.generation).is_some_and(|before| before != page.generation);
                if changed && tries < TRIES {
                    continue 'again;
                }
                registries.extend(page.registries);
                let last = registries.last().map(|heard| &heard.announcement);
                let last_key = last.and_then(|registry| registry.models.last()).map(|model| model.key.clone());
                match (page.more, last) {
                    (true, Some(last)) => {
                        query.registry = last.incarnation;
                        query.key = last_key.unwrap_or_default();
                    }
                    _ => return Ok(listing(registries, page.silent, page.generation)),
                }
            }
        }
    }

    /// The models of this key, in whichever process.
    ///
    /// # Errors
    /// As for [`list`](Self::list).
    pub fn get(&mut self, key: &str, timeout: Duration) -> Result<Listing, DirectoryCallError> {
        check_key(key)?;
        let deadline = Instant::now().checked_add(timeout);
        let mut query = Query { what: GET, key: key.to_owned(), ..Query::default() };
        let mut registries: Vec<Heard> = Vec::new();
        loop {
            let page = self.ask(&query, left(deadline, timeout))?;
            registries.extend(page.registries);
            match (page.more, registries.last()) {
                (true, Some(last)) => query.registry = last.announcement.incarnation.wrapping_add(1),
                _ => return Ok(listing(registries, page.silent, page.generation)),
            }
        }
    }

    /// Waits until anything is not as in the generation that was `seen`, at most as long as `patience` (and ten seconds).
    /// Returns the generation that is there then: the same one if nothing has changed.
    ///
    /// # Errors
    /// As for [`list`](Self::list), where `timeout` begins after the patience.
    pub fn watch(&mut self, seen: u64, patience: Duration, timeout: Duration) -> Result<u64, DirectoryCallError> {
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let query = Query { what: WATCH, seen, patience_ms, ..Query::default() };
        Ok(self.ask(&query, patience.saturating_add(timeout))?.generation)
    }

    fn ask(&mut self, query: &Query, timeout: Duration) -> Result<Page, DirectoryCallError> {
        let reply = self.client.call(&wire::encode_query(query), timeout)?;
        Ok(wire::decode_page(&reply)?)
    }
}

/// What is left of the time; all of it if its end is further away than can be told.
fn left(deadline: Option<Instant>, timeout: Duration) -> Duration {
    deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()))
}

/// Parts of one registry, which come one after the other, are put together.
fn listing(parts: Vec<Heard>, silent: u32, generation: u64) -> Listing {
    let mut whole: Vec<Heard> = Vec::new();
    for part in parts {
        match whole.last_mut() {
            Some(last) if last.announcement.incarnation == part.announcement.incarnation => {
                let Announcement { models, .. } = part.announcement;
                last.announcement.models.extend(models);
            }
            _ => whole.push(part),
        }
    }
    let seen = |heard: &Heard| ProcessModels::of(&heard.announcement, Duration::from_millis(heard.silent_ms));
    let mut processes: Vec<_> = whole.iter().map(seen).collect();
    processes.sort_by_key(|process| (process.pid, process.incarnation));
    Listing { processes, silent: silent as usize, generation }
}
