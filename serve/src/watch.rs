//! The thread that watches a session: listens to its registries, answers who asks for them, tells deaths, says who the daemon is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tensorbus_registry::{Directory, DirectoryError, DirectoryService, ProcessModels};
use tensorbus_transport::{Bus, ControlServer, Deaths, RequestError, SessionError};

use crate::daemon::{DaemonError, Holder};

/// Longest time between two looks.
const TICK: Duration = Duration::from_millis(100);
/// A thread that has not looked for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// A session that is being watched. Ends when it is dropped.
pub(crate) struct Watch {
    bus: Bus,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    directory: Mutex<Looked>,
    deaths: AtomicU64,
    stop: AtomicBool,
}

struct Looked {
    directory: Directory,
    at: Instant,
    /// Why the last look failed.
    trouble: Option<String>,
}

impl Watch {
    pub(crate) fn start(
        bus: Bus,
        server: ControlServer,
        mut service: DirectoryService,
        holder: Holder,
    ) -> Result<Self, DaemonError> {
        let looked = Looked { directory: Directory::open(&bus)?, at: Instant::now(), trouble: None };
        let shared =
            Arc::new(Shared { directory: Mutex::new(looked), deaths: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let (theirs, mut deaths) = (shared.clone(), bus.deaths()?);
        let thread = std::thread::Builder::new().name("tensorbus-watch".to_owned()).spawn(move || {
            while !theirs.stop.load(Ordering::Relaxed) {
                theirs.answer(&mut service);
                theirs.look(&mut service);
                theirs.say_who(&server, &holder);
                if let Err(error) = theirs.mourn(&mut deaths) {
                    tracing::warn!(%error, "deaths of processes cannot be seen");
                }
            }
        })?;
        Ok(Self { bus, shared, thread: Some(thread) })
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The models of all processes, as of now.
    pub(crate) fn processes(&self) -> Result<(Vec<ProcessModels>, u64), DirectoryError> {
        let mut looked = self.shared.lock();
        looked.directory.refresh()?;
        Ok((looked.directory.processes(), looked.directory.rejected().0))
    }

    /// Deaths that were told since the daemon began.
    pub(crate) fn deaths(&self) -> u64 {
        self.shared.deaths.load(Ordering::Relaxed)
    }

    /// What is wrong with the daemon, if anything.
    pub(crate) fn trouble(&self) -> Option<String> {
        let looked = self.shared.lock();
        if looked.at.elapsed() > HANGS_AFTER {
            return Some(format!("nobody has looked at the session for {:?}", looked.at.elapsed()));
        }
        if !self.bus.service_thread().is_some_and(|thread| thread.is_running()) {
            return Some("the thread that looks after the session has ended".to_owned());
        }
        looked.trouble.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that watches the session had panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Looked> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a request to the directory, at most for a tick.
    fn answer(&self, service: &mut DirectoryService) {
        match service.recv(TICK) {
            Ok(Some(request)) => {
                if let Err(error) = service.answer(&mut self.lock().directory, request) {
                    tracing::warn!(%error, "the directory of models cannot be looked at");
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "requests to the directory cannot be received");
                std::thread::sleep(TICK);
            }
        }
    }

    /// Tells who asks for the daemon.
    fn say_who(&self, server: &ControlServer, holder: &Holder) {
        match server.recv(Duration::ZERO) {
            Ok(request) if request.bytes() == b"who" => {
                let reply = serde_json::to_vec(holder).unwrap_or_default();
                if let Err(error) = request.reply(&reply) {
                    tracing::debug!(%error, "who asked for the daemon does not wait for the answer");
                }
            }
            Ok(request) => tracing::debug!(bytes = request.bytes().len(), "a request that the daemon does not know"),
            Err(RequestError::Timeout { .. }) => {}
            Err(error) => tracing::warn!(%error, "requests cannot be received"),
        }
    }

    fn look(&self, service: &mut DirectoryService) {
        let mut looked = self.lock();
        looked.at = Instant::now();
        let trouble = looked.directory.refresh().err().map(|error| error.to_string());
        if trouble.is_some() && trouble != looked.trouble {
            tracing::warn!(error = trouble, "the directory of models cannot be looked at");
        }
        looked.trouble = trouble;
        service.tell(&looked.directory);
    }

    fn mourn(&self, deaths: &mut Deaths) -> Result<(), SessionError> {
        while let Some(death) = deaths.try_recv()? {
            self.deaths.fetch_add(1, Ordering::Relaxed);
            tracing::info!(pid = death.pid, "a process of the session died; what it left was removed");
        }
        Ok(())
    }
}
