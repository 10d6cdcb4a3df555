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
    /// What its pools may take, and take; null without a quota.
    quota: Option<Quota>,
    /// Processes that live in it, without this one.
    members: Vec<u32>,
    /// Dead processes whose files are still there.
    dead: Vec<u32>,
    /// Whether anything that dead processes left was removed now.
    cleaned: bool,
    /// Dead processes whose files were removed now.
    removed: Vec<u32>,
    /// Pools and connections that belonged to nobody and were removed now.
    removed_files: usize,
    /// What went wrong with looking at it or cleaning it.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Quota {
    bytes: u64,
    used: u64,
}

/// All sessions of this user, or the one named, after removing what dead processes left if that is asked for.
pub(super) fn look(only: Option<&str>, fix: bool) -> anyhow::Result<Vec<Session>> {
    let found = Bus::sessions().with_context(|| format!("could not read {}", Bus::default_directory().display()))?;
    let wanted = found.into_iter().filter(|facts| only.is_none_or(|name| name == facts.name));
    Ok(wanted.map(|facts| if facts.in_use { Session::in_use(facts, fix) } else { Session::left(facts, fix) }).collect())
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
        return check.but(Status::Warn, "`tensorbus doctor --fix` removes what dead processes left");
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
            quota: None,
            members: Vec::new(),
            dead: Vec::new(),
            cleaned: false,
            removed: Vec::new(),
            removed_files: 0,
            error: None,
        }
    }

    /// A session that others are in. Whoever joins it removes what the dead left, so it is only joined to do that.
    fn in_use(facts: SessionFacts, fix: bool) -> Self {
        let mut session = Self::of(facts.clone());
        if let Err(error) = session.look(&facts, fix) {
            session.error = Some(error.to_string());
        }
        session
    }

    fn look(&mut self, facts: &SessionFacts, fix: bool) -> Result<(), SessionError> {
        (self.members, self.dead) = each_once(facts.members()?);
        if fix {
            self.clean(facts)?;
        }
        self.quota = facts.quota()?.map(|quota| Quota { bytes: quota.bytes, used: quota.used });
        Ok(())
    }

    fn clean(&mut self, facts: &SessionFacts) -> Result<(), SessionError> {
        let bus = self.open()?;
        let cleaned = bus.cleaned_on_opening();
        let (_, still_dead) = each_once(facts.members()?);
        if cleaned.removed > 0 {
            self.removed = self.dead.iter().copied().filter(|pid| !still_dead.contains(pid)).collect();
        }
        self.removed_files = cleaned.stale_files;
        self.cleaned = cleaned.removed + cleaned.stale_files > 0;
        self.dead = still_dead;
        Ok(())
    }

    /// A session that nobody lives in: whoever enters it clears it, and the last one out removes it.
    fn left(facts: SessionFacts, fix: bool) -> Self {
        let mut session = Self::of(facts);
        if !fix {
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
        if !self.removed.is_empty() {
            state.push_str(&format!(", removed what {} left", pids(&self.removed)));
        }
        if self.removed_files > 0 {
            state.push_str(&format!(", removed {} of nobody", count(self.removed_files, "file", "files")));
        }
        if let Some(Quota { bytes, used }) = self.quota {
            state.push_str(&format!(", pools use {} of a quota of {}", HumanBytes(used), HumanBytes(bytes)));
        }
        vec![self.name.clone(), state, count(self.files, "file", "files"), HumanBytes(self.bytes).to_string()]
    }
}

/// A process that opened several buses is a member several times.
fn each_once((mut living, mut dead): (Vec<u32>, Vec<u32>)) -> (Vec<u32>, Vec<u32>) {
    for members in [&mut living, &mut dead] {
        members.sort_unstable();
        members.dedup();
    }
    (living, dead)
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
            quota: None,
            members: Vec::new(),
            dead: Vec::new(),
            cleaned: false,
            removed: Vec::new(),
            removed_files: 0,
            error: None,
        }
    }

    #[test]
    fn leftovers_are_told_with_what_to_do() {
        let check = check(&[session(true), session(false)]);
        assert_eq!(check.fact, "1 in use, 1 left by dead processes (2.00 KiB)");
        assert!(check.status == Status::Warn && check.advice.unwrap().contains("--fix"));
        assert_eq!(session(false).row(), ["lab", "left by dead processes", "3 files", "2.00 KiB"]);
    }

    #[test]
    fn dead_members_are_leftovers_too() {
        let half_dead = Session { members: vec![7], dead: vec![9, 11], ..session(true) };
        assert_eq!(half_dead.row()[1], "in use by 1 process (7), dead: 9, 11");
        assert_eq!(check(&[half_dead]).status, Status::Warn);
        let fixed = Session { members: vec![7], cleaned: true, removed: vec![9], removed_files: 2, ..session(true) };
        assert_eq!(fixed.row()[1], "in use by 1 process (7), removed what 9 left, removed 2 files of nobody");
        assert_eq!(check(&[fixed]).status, Status::Ok);
    }

    #[test]
    fn a_quota_is_told_with_its_use() {
        let quota = Some(Quota { bytes: 4 << 20, used: 1 << 20 });
        let bounded = Session { members: vec![7], quota, ..session(true) };
        assert_eq!(bounded.row()[1], "in use by 1 process (7), pools use 1.00 MiB of a quota of 4.00 MiB");
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
