//! The sessions of this user, and what dead processes left of them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::HumanBytes;
use serde::Serialize;
use tensorbus::{Bus, SessionError, SessionFacts};

use super::check::{Check, Status};
use crate::output::count;

/// A session as it was found, and what was done about it.
#[derive(Debug, Serialize)]
pub(super) struct Session {
    name: String,
    directory: PathBuf,
    /// Whether a living process was in it.
    in_use: bool,
    bytes: u64,
    files: usize,
    /// Processes that live in it, without this one.
    members: Vec<u32>,
    /// Dead processes whose files are still there.
    dead: Vec<u32>,
    /// Whether what dead processes left was removed now.
    cleaned: bool,
    /// What went wrong with looking at it or cleaning it.
    error: Option<String>,
}

/// All sessions of this user, or the one named, after removing what dead processes left if that is asked for.
pub(super) fn look(only: Option<&str>, clean: bool) -> anyhow::Result<Vec<Session>> {
    let found = Bus::sessions().with_context(|| format!("could not read {}", Bus::default_directory().display()))?;
    let wanted = found.into_iter().filter(|facts| only.is_none_or(|name| name == facts.name));
    Ok(wanted
        .map(|facts| if facts.in_use { Session::in_use(facts, clean) } else { Session::left(facts, clean) })
        .collect())
}

pub(super) fn check(sessions: &[Session]) -> Check {
    const NAME: &str = "sessions";
    let in_use = sessions.iter().filter(|session| session.in_use).count();
    let left: Vec<_> = sessions.iter().filter(|session| !session.in_use && !session.cleaned).collect();
    let cleaned = sessions.iter().filter(|session| session.cleaned).count();
    let dead = sessions.iter().filter(|session| !session.dead.is_empty()).count();
    let mut fact = vec![format!("{in_use} in use")];
    if !left.is_empty() {
        let bytes = left.iter().map(|session| session.bytes).sum();
        fact.push(format!("{} left by dead processes ({})", left.len(), HumanBytes(bytes)));
    }
    if dead > 0 {
        fact.push(format!("{dead} with dead members"));
    }
    if cleaned > 0 {
        fact.push(format!("{cleaned} cleaned"));
    }
    let check = Check::ok(NAME, fact.join(", "));
    if sessions.iter().any(|session| session.error.is_some()) {
        return check.but(Status::Warn, "see below what could not be looked at or cleaned");
    }
    if !left.is_empty() || dead > 0 {
        return check.but(Status::Warn, "`tensorbus doctor --clean` removes what dead processes left");
    }
    check
}

impl Session {
    fn of(facts: SessionFacts) -> Self {
        Self {
            name: facts.name,
            directory: facts.directory,
            in_use: facts.in_use,
            bytes: facts.bytes,
            files: facts.files,
            members: Vec::new(),
            dead: Vec::new(),
            cleaned: false,
            error: None,
        }
    }

    /// A session that others are in: joins it to ask for its members.
    fn in_use(facts: SessionFacts, clean: bool) -> Self {
        let mut session = Self::of(facts);
        let asked = session.open().and_then(|bus| {
            session.cleaned = clean && bus.remove_dead()?.removed > 0;
            bus.members()
        });
        match asked {
            Ok((mut living, mut dead)) => {
                living.retain(|&member| member != std::process::id());
                for members in [&mut living, &mut dead] {
                    // A process that opened several buses is there several times.
                    members.sort_unstable();
                    members.dedup();
                }
                (session.members, session.dead) = (living, dead);
            }
            Err(error) => session.error = Some(error.to_string()),
        }
        session
    }

    /// A session that nobody lives in: whoever enters it clears it, and the last one out removes it.
    fn left(facts: SessionFacts, clean: bool) -> Self {
        let mut session = Self::of(facts);
        if !clean {
            return session;
        }
        match session.open() {
            Ok(bus) => drop(bus),
            Err(error) => {
                session.error = Some(format!("{error}; `rm -r {}`", session.directory.display()));
                return session;
            }
        }
        let still_there = Bus::sessions().is_ok_and(|sessions| {
            sessions.iter().any(|facts| facts.directory == session.directory && !facts.in_use && facts.files > 1)
        });
        session.cleaned = !still_there;
        if still_there {
            session.error = Some(format!("not all of it could be removed; `rm -r {}`", session.directory.display()));
        }
        session
    }

    /// Joins it where it lies, which need not be where sessions lie by default.
    fn open(&self) -> Result<Bus, SessionError> {
        let base = self.directory.parent().unwrap_or(Path::new("/"));
        Bus::builder().directory(base).session(&self.name).open()
    }

    /// One row of the table: name, what it is, files, bytes.
    pub(super) fn row(&self) -> Vec<String> {
        let pids = |pids: &[u32]| pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let mut state = match (&self.error, self.in_use, self.cleaned) {
            (Some(error), ..) => error.clone(),
            (None, true, _) if self.members.is_empty() => "in use until just now".to_owned(),
            (None, true, _) => {
                let processes = count(self.members.len(), "process", "processes");
                format!("in use by {processes} ({})", pids(&self.members))
            }
            (None, false, true) => "left by dead processes, removed".to_owned(),
            (None, false, false) => "left by dead processes".to_owned(),
        };
        if !self.dead.is_empty() {
            state.push_str(&format!(", dead: {}", pids(&self.dead)));
        }
        vec![self.name.clone(), state, count(self.files, "file", "files"), HumanBytes(self.bytes).to_string()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(in_use: bool) -> Session {
        Session {
            name: "lab".to_owned(),
            directory: "/dev/shm/tb-0-lab".into(),
            in_use,
            bytes: 2048,
            files: 3,
            members: Vec::new(),
            dead: Vec::new(),
            cleaned: false,
            error: None,
        }
    }

    #[test]
    fn leftovers_are_told_with_what_to_do() {
        let check = check(&[session(true), session(false)]);
        assert_eq!(check.fact, "1 in use, 1 left by dead processes (2.00 KiB)");
        assert!(check.status == Status::Warn && check.advice.unwrap().contains("--clean"));
        assert_eq!(session(false).row(), ["lab", "left by dead processes", "3 files", "2.00 KiB"]);
    }

    #[test]
    fn dead_members_are_leftovers_too() {
        let half_dead = Session { members: vec![7], dead: vec![9, 11], ..session(true) };
        assert_eq!(half_dead.row()[1], "in use by 1 process (7), dead: 9, 11");
        assert_eq!(check(&[half_dead]).status, Status::Warn);
    }

    #[test]
    fn nothing_left_is_fine() {
        assert_eq!(check(&[]), Check::ok("sessions", "0 in use"));
        let cleaned = Session { cleaned: true, ..session(false) };
        assert_eq!(check(&[cleaned]), Check::ok("sessions", "0 in use, 1 cleaned"));
        let failed = Session { error: Some("no".to_owned()), ..session(true) };
        assert_eq!(check(&[failed]).status, Status::Warn);
    }
}
