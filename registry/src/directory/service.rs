use std::time::{Duration, Instant};

use tensorbus_transport::{Bus, ControlRequest, ControlServer, RequestError, ServiceBuilder, ServiceError};

use super::listen::{Directory, DirectoryError};
use super::wire::{self, Announcement, GET, Heard, LIST, MAX_QUERY_BYTES, Page, Query};

/// The control service of a session's one directory service.
pub const DIRECTORY_SERVICE: &str = "tensorbus/directory";

/// Who can ask at a time.
const MAX_CLIENTS: usize = 16;
/// Bytes of models in a page, about: with what is around them it fits into a reply.
const PAGE_BYTES: usize = 48 << 10;
/// What a model takes in a page beside its texts, and a registry: their numbers, and what aligns them.
const NUMBERS: usize = 128;
/// Longest time that a watcher is kept waiting; it asks again.
const LONGEST_WATCH: Duration = Duration::from_secs(10);

/// Answers who wants to know the models of a session and does not listen itself: a list, the models of one key, and when
/// anything changes. [`DirectoryClient`](super::DirectoryClient) asks. `tensorbus daemon` has one.
///
/// It knows nothing that a [`Directory`] does not, and keeps nothing: whoever has the directory gives it requests to answer.
#[derive(Debug)]
pub struct DirectoryService {
    server: ControlServer,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    request: ControlRequest,
    seen: u64,
    until: Instant,
}

impl DirectoryService {
    /// Becomes the directory service of a session.
    ///
    /// # Errors
    /// [`ServiceError::HasServer`] if it has one.
    pub fn open(bus: &Bus) -> Result<Self, ServiceError> {
        Ok(Self { server: service(bus).server()?, watchers: Vec::new() })
    }

    /// Waits for a request, at most as long as `bound`.
    ///
    /// # Errors
    /// [`RequestError`] if requests cannot be received any more; that none came is no error.
    pub fn recv(&self, bound: Duration) -> Result<Option<ControlRequest>, RequestError> {
        match self.server.recv(bound) {
            Ok(request) => Ok(Some(request)),
            Err(RequestError::Timeout { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers a request with what the directory knows now; one that watches is kept until [`tell`](Self::tell) answers it.
    ///
    /// # Errors
    /// [`DirectoryError`] if the session cannot be looked at. The client then gets no reply.
    pub fn answer(&mut self, directory: &mut Directory, request: ControlRequest) -> Result<(), DirectoryError> {
        let query = match wire::decode_query(request.bytes()) {
            Ok(query) => query,
            Err(error) => {
                // Dropped: its client gets `NoReply`.
                tracing::debug!(%error, "a request that the directory service does not know");
                return Ok(());
            }
        };
        directory.refresh()?;
        let (registries, more) = match query.what {
            LIST => list(directory, &query),
            GET => having(directory, &query),
            _ => {
                let patience = Duration::from_millis(query.patience_ms.into()).min(LONGEST_WATCH);
                self.watchers.push(Watcher { request, seen: query.seen, until: Instant::now() + patience });
                self.tell(directory);
                return Ok(());
            }
        };
        let silent = directory.silent()? as u32;
        reply(request, &Page { generation: directory.generation(), silent, more, registries });
        Ok(())
    }

    /// Tells those who watch if anything is not as they know it, or they have waited long enough. To be called often.
    pub fn tell(&mut self, directory: &Directory) {
        let (generation, now) = (directory.generation(), Instant::now());
        let (told, waiting) =
            self.watchers.drain(..).partition(|watcher| watcher.seen != generation || watcher.until <= now);
        self.watchers = waiting;
        let told: Vec<Watcher> = told;
        for watcher in told {
            reply(watcher.request, &Page { generation, silent: 0, more: false, registries: Vec::new() });
        }
    }
}

pub(super) fn service(bus: &Bus) -> ServiceBuilder {
    bus.service(DIRECTORY_SERVICE).max_request_bytes(MAX_QUERY_BYTES).max_clients(MAX_CLIENTS)
}

fn reply(request: ControlRequest, page: &Page) {
    if let Err(error) = request.reply(&wire::encode_page(page)) {
        tracing::debug!(%error, "who asked for the directory does not wait for the answer");
    }
}

/// What comes after the query's place, as much as a page holds, and whether there is more.
fn list(directory: &Directory, query: &Query) -> (Vec<Heard>, bool) {
    let (mut registries, mut bytes): (Vec<Heard>, usize) = (Vec::new(), 0);
    for (announcement, silent_for) in directory.heard_from(query.registry) {
        let is_continued = announcement.incarnation == query.registry;
        let mut part = part_of(announcement, silent_for);
        bytes += NUMBERS + announcement.program.len();
        for model in &announcement.models {
            if is_continued && model.key <= query.key {
                continue;
            }
            bytes += NUMBERS + model.key.len() + model.device.len() + model.failure.len();
            if bytes > PAGE_BYTES {
                registries.push(part);
                return (registries, true);
            }
            part.announcement.models.push(model.clone());
        }
        registries.push(part);
    }
    (registries, false)
}

/// The models of the query's key, of registries from its place on, as much as a page holds, and whether there is more.
fn having(directory: &Directory, query: &Query) -> (Vec<Heard>, bool) {
    let (mut registries, mut bytes) = (Vec::new(), 0);
    for (announcement, silent_for) in directory.heard_from(query.registry) {
        let Ok(index) = announcement.models.binary_search_by(|model| model.key.cmp(&query.key)) else { continue };
        let model = &announcement.models[index];
        let texts = announcement.program.len() + model.key.len() + model.device.len() + model.failure.len();
        bytes += 2 * NUMBERS + texts;
        if bytes > PAGE_BYTES {
            return (registries, true);
        }
        let mut part = part_of(announcement, silent_for);
        part.announcement.models.push(model.clone());
        registries.push(part);
    }
    (registries, false)
}

/// The registry without its models.
fn part_of(announcement: &Announcement, silent_for: Duration) -> Heard {
    let Announcement { pid, process, incarnation, revision, farewell, ref program, budget, omitted, .. } =
        *announcement;
    let program = program.clone();
    Heard {
        announcement: Announcement {
            pid,
            process,
            incarnation,
            revision,
            farewell,
            program,
            budget,
            omitted,
            models: Vec::new(),
        },
        silent_ms: silent_for.as_millis() as u64,
    }
}
