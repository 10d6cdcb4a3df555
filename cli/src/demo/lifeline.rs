//! What ties a node to the supervisor that started it: stdin says when to start and when to leave, stdout how it goes.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tensorbus::{Message, ReceiveError, Subscriber};

use super::tally::NodeReport;

/// What the supervisor writes to a node's stdin when all nodes are ready. It closes it when the node shall leave.
pub(super) const START: &str = "start";
/// How often a node tells how far it is.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// How often a node that waits for a message looks whether it shall leave.
const PATIENCE: Duration = Duration::from_millis(100);

/// A line of JSON that a node writes to its stdout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// All ports exist; the node can be sent to.
    Ready,
    /// Frames done so far.
    Progress(u32),
    /// Everything is done.
    Report(Box<NodeReport>),
    /// Nothing more will come.
    Failed(String),
}

/// What a node does when its supervisor closes the line, or dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnClose {
    /// Leaves the bus, then ends: whoever waits here is told.
    Leave,
    /// Ends at once: for nodes that are not on the bus, and leave nothing behind.
    End,
}

/// The node's end of the line. Runs two threads: one reads stdin, one tells the progress.
pub(super) struct Lifeline {
    shared: Arc<Shared>,
}

struct Shared {
    phase: Mutex<Phase>,
    changed: Condvar,
    frames: AtomicU32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing,
    Started,
    Closed,
}

impl Lifeline {
    pub(super) fn hold(on_close: OnClose) -> Self {
        let shared = Arc::new(Shared {
            phase: Mutex::new(Phase::Preparing),
            changed: Condvar::new(),
            frames: AtomicU32::new(0),
        });
        let (reader, teller) = (shared.clone(), shared.clone());
        std::thread::spawn(move || reader.read_stdin(on_close));
        std::thread::spawn(move || teller.tell_progress());
        Self { shared }
    }

    /// Says that all ports exist, and waits until all other nodes' do too. `false` if the node shall leave instead.
    pub(super) fn ready(&self) -> bool {
        tell(&Line::Ready);
        let phase = self.shared.lock();
        let wait = self.shared.changed.wait_while(phase, |phase| *phase == Phase::Preparing);
        *wait.unwrap_or_else(PoisonError::into_inner) == Phase::Started
    }

    /// Waits until `time`. `false` if the node shall leave instead.
    pub(super) fn wait_until(&self, time: Instant) -> bool {
        let left = time.saturating_duration_since(Instant::now());
        let wait = self.shared.changed.wait_timeout_while(self.shared.lock(), left, |phase| *phase != Phase::Closed);
        *wait.unwrap_or_else(PoisonError::into_inner).0 != Phase::Closed
    }

    /// Waits for a message. `None` if the node shall leave instead.
    ///
    /// The supervisor bounds the wait: it closes the line if there is no progress, and so does its death.
    pub(super) fn recv(&self, subscriber: &Subscriber) -> Result<Option<Message>, ReceiveError> {
        while *self.shared.lock() != Phase::Closed {
            match subscriber.recv(PATIENCE) {
                Err(ReceiveError::Timeout { .. }) => {}
                received => return received.map(Some),
            }
        }
        Ok(None)
    }

    /// Notes how many frames are done. Of several nodes in a process the one that is furthest counts.
    pub(super) fn progress(&self, frames: u32) {
        self.shared.frames.fetch_max(frames, Ordering::Relaxed);
    }

    /// Says how it went, and waits until the node may leave: what it published has then been received.
    pub(super) fn report(&self, report: NodeReport) {
        tell(&Line::Report(Box::new(report)));
        let wait = self.shared.changed.wait_while(self.shared.lock(), |phase| *phase != Phase::Closed);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// Says why the node ends before it is done.
    pub(super) fn failed(&self, error: &anyhow::Error) {
        tell(&Line::Failed(format!("{error:#}")));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        *self.lock() = phase;
        self.changed.notify_all();
    }

    fn read_stdin(&self, on_close: OnClose) {
        for line in std::io::stdin().lock().lines() {
            match line {
                Ok(line) if line == START => self.enter(Phase::Started),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        match on_close {
            OnClose::Leave => self.enter(Phase::Closed),
            OnClose::End => std::process::exit(0),
        }
    }

    fn tell_progress(&self) {
        let mut told = 0;
        let mut phase = self.lock();
        while *phase != Phase::Closed {
            let wait = self.changed.wait_timeout(phase, HEARTBEAT);
            phase = wait.unwrap_or_else(PoisonError::into_inner).0;
            let frames = self.frames.load(Ordering::Relaxed);
            if frames != told {
                told = frames;
                tell(&Line::Progress(frames));
            }
        }
    }
}

fn tell(line: &Line) {
    let Ok(mut text) = serde_json::to_string(line) else { return };
    text.push('\n');
    // A supervisor that is gone needs no answer; stdin tells the node to leave.
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
