//! `tensorbus doctor`: whether this machine can run a bus, and what dead processes left on it.

mod backend;
mod check;
mod limits;
mod logind;
mod machine;
mod self_test;
mod sessions;

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use tensorbus::Capabilities;

use self::check::{Check, Status};
use self::sessions::Session;
use crate::output;

/// Check this machine, try the bus, and find what dead processes left
///
/// Each line says ok, info (could be faster), warn (may fail under load) or FAIL, and what to do. Exits with 1 if
/// anything failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look at this session only. Default: all sessions of this user
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Remove what dead processes left: whole sessions where nobody lives, else their members, pools and connections
    #[arg(long)]
    fix: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// Whether nothing failed.
    ok: bool,
    version: &'static str,
    /// The one that a bus gets here which names none; null if none can be used.
    backend: Option<String>,
    checks: Vec<Check>,
    sessions: Vec<Session>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    output::until_closed(examine(&args))
}

fn examine(args: &Args) -> anyhow::Result<ExitCode> {
    let mut machine = Capabilities::detect();
    limits::take_those_of_the_shell(&mut machine.open_files);
    let mut checks = vec![backend::check(&machine.backend)];
    checks.extend(machine::checks(&machine));
    checks.extend(logind::check());
    let (sessions, sessions_check) = match sessions::look(args.session.as_deref(), args.fix) {
        Ok(sessions) => {
            let check = sessions::check(&sessions);
            (sessions, check)
        }
        Err(error) => {
            let check = Check::ok("sessions", format!("{error:#}"));
            (Vec::new(), check.but(Status::Fail, "let this user read the directory"))
        }
    };
    checks.push(self_test::check());
    checks.push(sessions_check);
    let ok = checks.iter().all(|check| check.status != Status::Fail);
    let backend = machine.backend.as_ref().ok().map(|choice| choice.backend.to_string());
    let report = Report { ok, version: env!("CARGO_PKG_VERSION"), backend, checks, sessions };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(out, "{}", report.in_words())?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Report {
    fn in_words(&self) -> String {
        let rows: Vec<_> = self
            .checks
            .iter()
            .map(|check| vec![check.status.word().to_owned(), check.name.to_owned(), check.fact.clone()])
            .collect();
        let mut text = String::new();
        for (line, check) in output::table(&rows, &[]).lines().zip(&self.checks) {
            text.push_str(&format!("{line}\n"));
            if let Some(advice) = &check.advice {
                text.push_str(&format!("      -> {advice}\n"));
            }
        }
        if !self.sessions.is_empty() {
            let rows: Vec<_> = self.sessions.iter().map(Session::row).collect();
            text.push('\n');
            for line in output::table(&rows, &[2, 3]).lines() {
                text.push_str(&format!("      {line}\n"));
            }
        }
        text + "\n" + &self.verdict() + "\n"
    }

    fn verdict(&self) -> String {
        let number = |status| self.checks.iter().filter(|check| check.status == status).count();
        match (number(Status::Fail), number(Status::Warn)) {
            (0, 0) => "This machine is ready for tensorbus.".to_owned(),
            (0, warnings) => {
                format!("This machine can run tensorbus; {}.", output::count(warnings, "warning", "warnings"))
            }
            (failures, _) => {
                format!(
                    "This machine cannot run tensorbus as it is: {} failed.",
                    output::count(failures, "check", "checks")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statuses: &[Status]) -> Report {
        let check = |&status| Check::ok("thing", "fact").but(status, "advice");
        let checks: Vec<_> = statuses.iter().map(check).collect();
        Report { ok: true, version: "0", backend: None, checks, sessions: Vec::new() }
    }

    #[test]
    fn advice_stands_below_its_fact() {
        let text = report(&[Status::Ok, Status::Fail]).in_words();
        assert!(text.starts_with("ok    thing  fact\n      -> advice\nFAIL  thing  fact\n      -> advice\n"), "{text}");
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        assert!(report(&[Status::Ok, Status::Info]).verdict().contains("ready"));
        assert!(report(&[Status::Warn, Status::Ok]).verdict().ends_with("1 warning."));
        assert!(report(&[Status::Warn, Status::Fail, Status::Fail]).verdict().contains("2 checks failed"));
    }
}
