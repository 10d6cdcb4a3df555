use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::os::Owned;
use crate::port::Node;

/// The shortest interval of a [`ServiceThread`].
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// Longest wait for other processes that change the session; a tick that does not get its turn leaves it to the next.
const PATIENCE: Duration = Duration::from_millis(100);

/// The one background thread of a bus. There is none unless the program asks for it with
/// [`BusBuilder::service_thread`](crate::BusBuilder::service_thread).
///
/// Once in each interval it
/// - removes what killed processes left in the session, and tells their deaths to those who follow [`Bus::deaths`];
/// - gives late joiners the history of each publisher of this bus, whose topic has one;
/// - opens this side of new connections for each subscriber of this bus, so that what a publisher sends before it leaves
///   stays readable even if nobody is reading just then.
///
/// A port that another thread is using just then is left alone until the next tick. The thread holds no part of the bus: with
/// the last of bus, publishers, subscribers and tensors it is stopped and joined, which takes no longer than the tick it is
/// in. A forked child does not have it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tensorbus_transport::Bus;
///
/// let bus = Bus::builder().session("doc-service").service_thread(Duration::from_millis(100)).open()?;
/// assert!(bus.service_thread().is_some());
/// # Ok(())
/// # }
/// ```
///
/// [`Bus::deaths`]: crate::Bus::deaths
#[derive(Debug)]
pub struct ServiceThread {
    interval: Duration,
    running: Owned<Running>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Running {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: Mutex<bool>,
    stop: Condvar,
    ticks: AtomicU64,
}

impl ServiceThread {
    pub(super) fn start(node: &Node, interval: Duration) -> io::Result<Self> {
        let interval = interval.max(SHORTEST_INTERVAL);
        let shared = Arc::new(Shared::default());
        let (theirs, janitor) = (shared.clone(), node.janitor(PATIENCE));
        let thread = std::thread::Builder::new().name("tensorbus".to_owned()).spawn(move || {
            while !theirs.stopped_within(interval) {
                janitor();
                theirs.ticks.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        let running = Owned::new(Running { thread: Some(thread), shared: shared.clone() });
        Ok(Self { interval, running, shared })
    }

    /// Time between two ticks; at least a millisecond.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Ticks so far.
    pub fn ticks(&self) -> u64 {
        self.shared.ticks.load(Ordering::Relaxed)
    }

    /// Whether the thread runs: not in a process that was forked from the one that started it.
    pub fn is_running(&self) -> bool {
        self.running.get().is_ok_and(|running| running.thread.as_ref().is_some_and(|thread| !thread.is_finished()))
    }
}

impl Shared {
    /// Waits for one interval, or until the thread is to end.
    fn stopped_within(&self, interval: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.stop.wait_timeout_while(stopped, interval, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stop.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // It owns nothing of ours. But what it logs may be handled by code that does, which must not wait for itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::warn!("the service thread of a bus had panicked");
        }
    }
}
