use std::time::{Duration, Instant};

use tensorbus_transport::{Bus, Message, ReceiveError, SessionError, Subscriber, TopicError};

use super::known::{Known, ProcessModels};
use super::wire::{self, Announcement, DirectoryDecodeError};
use super::{MODELS_TOPIC, TICK, topic};

/// The models of all processes of a session, as their registries [announce](crate::ModelRegistry::announce) them.
///
/// Rebuilt from what is heard: there is no server, and any number of programs may each have one. Models of a process that died
/// are gone at the next look; those of one that hangs are shown as stale.
#[derive(Debug)]
pub struct Directory {
    bus: Bus,
    subscriber: Subscriber,
    known: Known,
    began: Instant,
    generation: u64,
    rejected: u64,
    last_rejection: Option<DirectoryDecodeError>,
}

/// Why there is no directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The topic of announcements cannot be opened or looked at.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Announcements cannot be received any more.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The session cannot be looked at.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// What was waited for did not happen.
    #[error("the models of session {session:?} were not as expected within {waited:?}")]
    Timeout {
        /// The session.
        session: String,
        /// How long was waited.
        waited: Duration,
    },
}

impl Directory {
    /// Listens to the registries of a session. Those that are there say everything within a tenth of a second:
    /// [`complete`](Self::complete) waits for it.
    ///
    /// # Errors
    /// [`DirectoryError`] if the topic cannot be opened.
    pub fn open(bus: &Bus) -> Result<Self, DirectoryError> {
        Ok(Self {
            bus: bus.clone(),
            subscriber: topic(bus).subscriber()?,
            known: Known::default(),
            began: Instant::now(),
            generation: super::random(),
            rejected: 0,
            last_rejection: None,
        })
    }

    /// Takes in what was announced, and removes who is dead. Returns whether anything has changed. Does not wait.
    ///
    /// # Errors
    /// [`DirectoryError`] if the session cannot be looked at.
    pub fn refresh(&mut self) -> Result<bool, DirectoryError> {
        let mut changed = false;
        while let Some(message) = self.subscriber.try_recv()? {
            changed |= self.hear(&message);
        }
        // After what the dead had said last.
        let (living, _) = self.bus.members()?;
        let fewer = self.known.living(&living);
        self.generation = self.generation.wrapping_add(fewer.into());
        Ok(fewer || changed)
    }

    /// Another number whenever anything has changed. It begins anywhere.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many registries of the session were not heard yet.
    ///
    /// # Errors
    /// [`DirectoryError`] if the session cannot be looked at.
    pub fn silent(&self) -> Result<usize, DirectoryError> {
        let topics = self.bus.topics()?;
        let there = topics.iter().find(|topic| topic.name == MODELS_TOPIC).map_or(0, |topic| topic.publishers());
        Ok(there.saturating_sub(self.known.len()))
    }

    pub(super) fn heard_from(&self, incarnation: u64) -> impl Iterator<Item = (&Announcement, Duration)> {
        self.known.heard_from(incarnation, self.began.elapsed())
    }

    /// Waits until something has changed, at most as long as `timeout`. Returns whether it has.
    ///
    /// # Errors
    /// [`DirectoryError`] if the session cannot be looked at.
    pub fn changed(&mut self, timeout: Duration) -> Result<bool, DirectoryError> {
        let deadline = after(timeout);
        loop {
            if self.refresh()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Deaths are not announced by who dies: they are looked for.
            match self.subscriber.recv(left.min(TICK)) {
                Ok(message) => {
                    if self.hear(&message) {
                        self.refresh()?;
                        return Ok(true);
                    }
                }
                Err(ReceiveError::Timeout { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the registries are as `expected`.
    ///
    /// # Errors
    /// [`DirectoryError::Timeout`] if they are not in time, others if the session cannot be looked at.
    pub fn wait_for(
        &mut self,
        timeout: Duration,
        expected: impl Fn(&[ProcessModels]) -> bool,
    ) -> Result<(), DirectoryError> {
        let deadline = after(timeout);
        self.refresh()?;
        while !expected(&self.processes()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DirectoryError::Timeout { session: self.bus.session().to_owned(), waited: timeout });
            }
            // Staleness comes with time alone.
            self.changed(left.min(TICK))?;
        }
        Ok(())
    }

    /// Waits until every registry of the session was heard, at most as long as `timeout`. Returns how many were not: their
    /// processes hang or are stopped.
    ///
    /// # Errors
    /// [`DirectoryError`] if the session cannot be looked at.
    pub fn complete(&mut self, timeout: Duration) -> Result<usize, DirectoryError> {
        let deadline = after(timeout);
        loop {
            self.refresh()?;
            let silent = self.silent()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if silent == 0 || left.is_zero() {
                return Ok(silent);
            }
            self.changed(left.min(TICK))?;
        }
    }

    /// The registries that were heard, by process id, as of the last look.
    pub fn processes(&self) -> Vec<ProcessModels> {
        self.known.processes(self.began.elapsed())
    }

    /// Announcements that were skipped because they were not valid, and what was wrong with the last one.
    pub fn rejected(&self) -> (u64, Option<&DirectoryDecodeError>) {
        (self.rejected, self.last_rejection.as_ref())
    }

    fn hear(&mut self, message: &Message) -> bool {
        match wire::decode_announcement(message.first().bytes()) {
            // It may have waited for us, or for its history to be delivered.
            Ok(announcement) => {
                let said_at = self.began.elapsed().saturating_sub(message.age());
                let changed = self.known.heard(announcement, said_at);
                self.generation = self.generation.wrapping_add(changed.into());
                changed
            }
            Err(error) => {
                self.rejected += 1;
                self.last_rejection = Some(error);
                false
            }
        }
    }
}

/// A time that is too far away to be told is a year.
fn after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600))
}
