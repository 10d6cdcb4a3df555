//! Starts the nodes, follows them, and sees to it that none of them stays behind.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use tempfile::TempDir;
use tensorbus::{Bus, CACHE_VARIABLE};

use super::lifeline::{Line, START};
use super::node::{NodeOptions, Role};
use super::tally::NodeReport;

/// Longest time without any sign of progress.
const SILENCE: Duration = Duration::from_secs(20);
/// Time for nodes that are done to leave.
const FAREWELL: Duration = Duration::from_secs(5);
/// Time for nodes to leave that are told to in the middle of their work. The rest is killed.
const GRACE: Duration = Duration::from_secs(1);
/// Time in which a failure may turn out to have another reason.
const HINDSIGHT: Duration = Duration::from_millis(200);
const INTERRUPTED: &str = "interrupted; all nodes of the demo were ended";
const SIGBUS: i32 = rustix::process::Signal::BUS.as_raw();

/// Runs nodes, each a process of its own. Dropped, it ends them all and removes what they left.
pub(super) struct Supervisor {
    /// The command line that starts this program again.
    program: Vec<OsString>,
    /// Where the nodes find the model, once one of them has put it there.
    cache: TempDir,
    nodes: Vec<Node>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// As a member of the session, the supervisor can clean up after nodes that were killed. It comes after the first
    /// of them and never stays alone: if it is killed itself, there is a node that leaves as the last one.
    bus: Option<Bus>,
}

/// A child process.
struct Node {
    role: Role,
    child: Child,
    /// Closed to make the node leave.
    stdin: Option<ChildStdin>,
    frames: u32,
    is_ready: bool,
    /// Whether its stdout is closed: only its end does that.
    has_ended: bool,
    report: Option<NodeReport>,
}

enum Event {
    Line(Role, String),
    Ended(Role),
    Interrupted,
}

impl Supervisor {
    /// Takes over Ctrl-C.
    pub(super) fn new(program: &[OsString]) -> anyhow::Result<Self> {
        let (sender, events) = channel();
        let interrupted = sender.clone();
        ctrlc::set_handler(move || {
            let _ = interrupted.send(Event::Interrupted);
        })
        .context("cannot listen for Ctrl-C")?;
        let cache = tempfile::Builder::new().prefix("tensorbus-demo-").tempdir();
        let cache = cache.context("no directory for the model")?;
        Ok(Self { program: program.to_vec(), cache, nodes: Vec::new(), events, sender, bus: None })
    }

    /// Runs a stage of the demo to its end: its nodes are listed from the first to the last one that a frame comes to.
    ///
    /// `progress` is told how many frames the last node has done. Returns the reports, in the order of the nodes.
    ///
    /// # Errors
    /// If a node fails, ends early or is silent for too long, or on Ctrl-C. Then all nodes have been ended.
    pub(super) fn run(&mut self, stage: &[NodeOptions], progress: impl FnMut(u32)) -> anyhow::Result<Vec<NodeReport>> {
        let done = self.run_nodes(stage, progress);
        let hitch = self.end_all(if done.is_ok() { FAREWELL } else { GRACE });
        match (done, hitch) {
            (Ok(_), Some(hitch)) => Err(hitch),
            (done, _) => done,
        }
    }

    fn run_nodes(&mut self, stage: &[NodeOptions], mut progress: impl FnMut(u32)) -> anyhow::Result<Vec<NodeReport>> {
        let total = stage.first().map_or(0, |options| options.frames);
        // From the last to the first: a node finds those that it sends to in place.
        for options in stage.iter().rev() {
            let node = Node::spawn(&self.program, self.cache.path(), options, self.sender.clone())
                .with_context(|| format!("cannot start {}", options.role))?;
            self.nodes.insert(0, node);
            self.follow(|node| node.is_ready, total, &mut progress)?;
            if options.role.is_on_bus() && self.bus.is_none() {
                self.bus = Some(Bus::open()?);
            }
        }
        for node in &mut self.nodes {
            if let Some(stdin) = &mut node.stdin {
                // If the node is gone, its end is the next thing to be heard of it.
                let _ = writeln!(stdin, "{START}");
            }
        }
        self.follow(|node| node.report.is_some(), total, &mut progress)?;
        Ok(self.nodes.iter().filter_map(|node| node.report.clone()).collect())
    }

    /// Follows the nodes until all are as wanted.
    fn follow(
        &mut self,
        wanted: impl Fn(&Node) -> bool,
        total: u32,
        progress: &mut impl FnMut(u32),
    ) -> anyhow::Result<()> {
        let mut deadline = Instant::now() + SILENCE;
        while !self.nodes.iter().all(&wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Line(role, line)) => self.heard(role, &line)?,
                Ok(Event::Ended(role)) => return Err(self.ended(role, total)),
                Ok(Event::Interrupted) => bail!(INTERRUPTED),
                Err(RecvTimeoutError::Timeout) => return Err(self.silent(total)),
                Err(RecvTimeoutError::Disconnected) => bail!("nothing more can be heard of the nodes"),
            }
            // Nodes speak only when there is something new.
            deadline = Instant::now() + SILENCE;
            progress(self.nodes.last().map_or(0, |node| node.frames));
        }
        Ok(())
    }

    fn heard(&mut self, role: Role, line: &str) -> anyhow::Result<()> {
        let line = serde_json::from_str(line).with_context(|| format!("{role} wrote {line:?}"))?;
        let Some(node) = self.nodes.iter_mut().find(|node| node.role == role) else { return Ok(()) };
        match line {
            Line::Ready => node.is_ready = true,
            Line::Progress(frames) => node.frames = frames,
            Line::Report(report) => node.report = Some(*report),
            Line::Failed(reason) => return Err(self.failed(role, &reason)),
        }
        Ok(())
    }

    /// Why a node failed: for a reason of its own, or because another one was killed, of which word may still be on its
    /// way.
    fn failed(&mut self, role: Role, reason: &str) -> anyhow::Error {
        let deadline = Instant::now() + HINDSIGHT;
        while let Ok(event) = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            let Event::Ended(role) = event else { continue };
            self.reap(role);
            if let Some(killed) = self.killed() {
                return killed;
            }
        }
        anyhow!("{role} failed: {reason}")
    }

    /// Why a node ended that should not have.
    fn ended(&mut self, role: Role, total: u32) -> anyhow::Error {
        self.reap(role);
        self.killed().unwrap_or_else(|| anyhow!("{role} ended before its {total} frames were done"))
    }

    /// Takes note of a node's end.
    fn reap(&mut self, role: Role) {
        for node in self.nodes.iter_mut().filter(|node| node.role == role) {
            node.has_ended = true;
            // Its stdout is closed, so there is next to nothing to wait for; the status is asked for again later.
            let _ = node.child.wait();
        }
    }

    /// The first node that a signal ended.
    fn killed(&mut self) -> Option<anyhow::Error> {
        self.nodes.iter_mut().find_map(|node| {
            let status = node.child.try_wait().ok()??;
            let hint = match status.signal()? {
                SIGBUS => format!("; most likely {} is full", Bus::default_directory().display()),
                _ => String::new(),
            };
            Some(anyhow!("{} was killed after {} frames: {status}{hint}", node.role, node.frames))
        })
    }

    fn silent(&self, total: u32) -> anyhow::Error {
        if let Some(node) = self.nodes.iter().find(|node| !node.is_ready) {
            return anyhow!("{} did not get ready within {SILENCE:?}", node.role);
        }
        let known = self.nodes.iter().map(|node| (node.role.stage(), node.frames, node.report.is_some()));
        let known: Vec<_> = known.collect();
        let (role, frames) = self.nodes.get(silent_node(&known)).map_or((Role::Camera, 0), |n| (n.role, n.frames));
        anyhow!("{role} was silent for {SILENCE:?}, after {frames} of {total} frames")
    }

    /// Ends all nodes: asks them to leave, kills those that do not within `grace`, and removes what those left.
    ///
    /// Returns what came in between: a node that did something else, or Ctrl-C.
    fn end_all(&mut self, grace: Duration) -> Option<anyhow::Error> {
        let deadline = Instant::now() + grace;
        let mut hitch = None;
        for node in &mut self.nodes {
            node.stdin = None;
        }
        while self.nodes.iter().any(|node| !node.has_ended) {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Ended(role)) => self.reap(role),
                Ok(Event::Line(..)) => {}
                Ok(Event::Interrupted) => hitch = Some(anyhow!(INTERRUPTED)),
                Err(_) => break,
            }
        }
        let mut was_killed = false;
        for mut node in self.nodes.drain(..) {
            if !node.has_ended {
                // It fails only if the node has ended by itself.
                let _ = node.child.kill();
            }
            let how = match node.child.wait() {
                Ok(status) if status.success() => continue,
                Ok(status) => {
                    was_killed |= status.signal().is_some();
                    anyhow!("{} did not leave as it should: {status}", node.role)
                }
                Err(error) => anyhow!("{} could not be waited for: {error}", node.role),
            };
            hitch.get_or_insert(how);
        }
        if let Err(error) = self.clean_up(was_killed) {
            eprintln!("warning: what killed processes left could not be removed: {error:#}");
        }
        hitch
    }

    /// Removes from the session what killed nodes left, and leaves it.
    fn clean_up(&mut self, was_killed: bool) -> anyhow::Result<()> {
        let bus = match self.bus.take() {
            Some(bus) => bus,
            // Killed before the supervisor had joined.
            None if was_killed => Bus::open()?,
            None => return Ok(()),
        };
        let deadline = Instant::now() + GRACE;
        // It fails while another process is at the same: then that one does it.
        while bus.remove_dead()?.failed > 0 {
            ensure!(Instant::now() < deadline, "not within {GRACE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if !self.nodes.is_empty() {
            self.end_all(GRACE);
        }
    }
}

impl Node {
    fn spawn(program: &[OsString], cache: &Path, options: &NodeOptions, events: Sender<Event>) -> anyhow::Result<Self> {
        let role = options.role;
        let (executable, leading) = program.split_first().context("no command line for the nodes")?;
        let mut child = Command::new(executable)
            .args(leading)
            .arg("demo-node")
            .arg(role.to_string())
            .args(["--demo", &options.demo])
            .args(["--frames", &options.frames.to_string()])
            .args(["--fps", &options.fps.to_string()])
            .args(options.share.then_some("--share"))
            .env(CACHE_VARIABLE, cache)
            // Ctrl-C goes to the supervisor alone, which then ends its nodes.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        std::thread::spawn(move || listen(role, stdout, &events));
        Ok(Self { role, child, stdin, frames: 0, is_ready: false, has_ended: false, report: None })
    }
}

/// Passes on what a node writes, and its end.
fn listen(role: Role, stdout: Option<ChildStdout>, events: &Sender<Event>) {
    // A supervisor that does not listen any more is ending.
    for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok) {
        let _ = events.send(Event::Line(role, line));
    }
    let _ = events.send(Event::Ended(role));
}

/// Which node holds up the others, by the stage that it is, frames done, and whether it has reported, from the first node to
/// the last.
///
/// It is the last one that has not done what all of the stage before it have. If there is none, it is the first that has more to do.
fn silent_node(nodes: &[(usize, u32, bool)]) -> usize {
    let before =
        |stage: usize| nodes.iter().filter(|&&(before, ..)| before + 1 == stage).map(|&(_, frames, _)| frames).min();
    let behind = nodes.iter().rposition(|&(stage, frames, _)| before(stage).is_some_and(|before| frames < before));
    behind.or_else(|| nodes.iter().position(|&(.., reported)| !reported)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes are at stage 2.
    const STAGES: [usize; 5] = [0, 1, 2, 2, 3];

    #[test]
    fn the_silent_node_is_the_one_that_others_wait_for() {
        let behind = |frames: [u32; 5]| silent_node(&std::array::from_fn::<_, 5, _>(|n| (STAGES[n], frames[n], false)));
        assert_eq!(behind([0, 0, 0, 0, 0]), 0);
        assert_eq!(behind([100, 100, 100, 100, 100]), 0);
        assert_eq!(behind([103, 100, 100, 100, 100]), 1);
        assert_eq!(behind([106, 103, 100, 103, 100]), 2);
        assert_eq!(behind([106, 103, 103, 100, 100]), 3);
        assert_eq!(behind([103, 103, 103, 103, 100]), 4);
        // The camera was stopped before it told how far it was.
        assert_eq!(behind([97, 100, 100, 100, 100]), 0);
        let reported = |n| (STAGES[n], 300, n != 3);
        assert_eq!(silent_node(&std::array::from_fn::<_, 5, _>(reported)), 3);
    }
}
