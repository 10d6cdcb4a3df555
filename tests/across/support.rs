//! Sessions of their own, child processes, a watchdog.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tensorbus::{Bus, BusBuilder};

/// Long enough for a loaded machine; what takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A session that only this test uses. Dropping it checks that nothing of it is left.
pub(crate) struct Session {
    pub(crate) name: String,
    directory: PathBuf,
    _watchdog: Watchdog,
}

impl Session {
    pub(crate) fn new() -> Self {
        let asked = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Where it lies, and what it is called for the children, is the backend's.
        let bus = builder(&asked).open().expect("bus");
        Self { name: bus.session().to_owned(), directory: bus.directory().to_owned(), _watchdog: Watchdog::start() }
    }

    pub(crate) fn bus(&self) -> Bus {
        self.builder().open().expect("bus")
    }

    pub(crate) fn builder(&self) -> BusBuilder {
        builder(&self.name)
    }

    /// Starts a child in this session that plays `role`.
    pub(crate) fn node(&self, role: &str, args: &[&str]) -> Node {
        self.start(self.command(role, args))
    }

    pub(crate) fn command(&self, role: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command.arg(role).args(args).env("TENSORBUS_SESSION", &self.name);
        if let Some(backend) = super::backend() {
            command.env(tensorbus::BACKEND_VARIABLE, backend.to_string());
        }
        command
    }

    pub(crate) fn start(&self, mut command: Command) -> Node {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node starts");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Node { child, stdin, lines }
    }

    /// Everything that lies in the session's directory, by path.
    #[allow(dead_code, reason = "of use to the crash tests, which share this file")]
    pub(crate) fn files(&self) -> BTreeSet<PathBuf> {
        fn below(directory: &Path, found: &mut BTreeSet<PathBuf>) {
            for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
                if entry.file_type().expect("a type").is_dir() {
                    below(&entry.path(), found);
                }
                found.insert(entry.path());
            }
        }
        let mut found = BTreeSet::new();
        below(&self.directory(), &mut found);
        found
    }

    /// Makes iceoryx2 forget a process that joined after `before`: what it has registered in topics stays.
    pub(crate) fn remove_node_since(&self, before: &BTreeSet<PathBuf>) {
        let nodes = self.directory.join("nodes");
        // What lies in a directory comes after it.
        for path in self.files().iter().rev().filter(|path| path.starts_with(&nodes) && !before.contains(*path)) {
            if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) }.expect("removed");
        }
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.clone()
    }
}

/// On the backend that the module wants which includes this file.
fn builder(session: &str) -> BusBuilder {
    let builder = Bus::builder().session(session);
    if let Some(backend) = super::backend() { builder.backend(backend) } else { builder }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::fs::remove_dir_all(self.directory());
            return;
        }
        assert!(!self.directory().exists(), "{} is left behind", self.directory().display());
    }
}

/// A child process. Killed when dropped.
pub(crate) struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Node {
    /// The next line that the child prints.
    pub(crate) fn line(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the child says nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("the child ended without a word"),
        }
    }

    pub(crate) fn expect(&self, line: &str) {
        assert_eq!(self.line(), line);
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{line}").expect("the child reads");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the child with SIGKILL, and says how it ended: it may have been quicker.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait")
    }

    /// What a child that ended had still said.
    #[allow(dead_code, reason = "of use to the crash tests, which share this file")]
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Lets the child go to its end.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.tell_to_end();
        self.wait_for_end()
    }

    /// Lets the child go, and does not wait for it.
    pub(crate) fn tell_to_end(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the child does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends the test process when a test hangs, and says which.
struct Watchdog {
    _done: Sender<()>,
}

impl Watchdog {
    fn start() -> Self {
        let (done, ended) = channel::<()>();
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        std::thread::spawn(move || {
            if ended.recv_timeout(3 * PATIENCE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("watchdog: {test} hangs; the test process is ended");
                std::process::abort();
            }
        });
        Self { _done: done }
    }
}

/// Waits until something can be read from the descriptor.
#[allow(dead_code, reason = "not of use to the other tests that share this file")]
pub(crate) fn is_readable(descriptor: impl AsFd, bound: Duration) -> bool {
    let timeout = Timespec { tv_sec: bound.as_secs() as i64, tv_nsec: bound.subsec_nanos().into() };
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).expect("poll") == 1
}

/// Looks until something is so, within the patience that a hang would exceed.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::yield_now();
    }
}

/// A small generator for seeded tests (SplitMix64, Steele et al. 2014, doi 10.1145/2714064.2660195).
#[allow(dead_code, reason = "of use to the crash tests, which share this file")]
pub(crate) struct Random(u64);

#[allow(dead_code, reason = "as above")]
impl Random {
    /// Seeded by `TENSORBUS_SEED` or the clock; the seed is printed.
    pub(crate) fn seeded() -> Self {
        let seed = std::env::var("TENSORBUS_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().expect("clock").as_nanos() as u64);
        println!("seed: TENSORBUS_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
