use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crate::shell::{Alarm, Shell};

/// The one thread of a registry: unloads models whose time is over.
#[derive(Debug)]
pub(crate) struct Timer {
    alarm: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl Timer {
    pub(crate) fn start(shell: &Arc<Shell>) -> std::io::Result<Self> {
        let (alarm, theirs) = (shell.alarm().clone(), Arc::downgrade(shell));
        let thread = std::thread::Builder::new().name("tensorbus-ttl".to_owned()).spawn(move || run(&theirs))?;
        Ok(Self { alarm, thread: Some(thread), process: std::process::id() })
    }
}

fn run(shell: &Weak<Shell>) {
    let Some(alarm) = shell.upgrade().map(|shell| shell.alarm().clone()) else { return };
    while alarm.wait() {
        let Some(shell) = shell.upgrade() else { return };
        let (_, next) = shell.sweep();
        if let Some(next) = next {
            alarm.ring_at(next);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // In a forked child there is no such thread, and the lock of the alarm may be held for ever.
        if self.process != std::process::id() {
            return;
        }
        self.alarm.stop();
        // A model that owns its registry is dropped by the timer itself, which must not wait for itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::warn!("the timer of a model registry had panicked");
        }
    }
}
