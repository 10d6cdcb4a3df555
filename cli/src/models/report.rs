//! What `models` prints: a table for people, JSON for programs.

use std::time::{Duration, SystemTime};

use indicatif::{HumanBytes, HumanDuration};
use serde::Serialize;
use tensorbus::{KeepAlive, ModelInfo, ModelState, ProcessModels};

use crate::output;

#[derive(Serialize)]
pub(super) struct Report<'a> {
    session: &'a str,
    /// Registries that exist and say nothing: their processes hang.
    silent: usize,
    processes: Vec<ProcessReport<'a>>,
}

#[derive(Serialize)]
struct ProcessReport<'a> {
    pid: u32,
    program: &'a str,
    /// Two registries of a process have two numbers. Hexadecimal.
    registry: String,
    stale: bool,
    silent_s: f64,
    memory_budget: Option<u64>,
    models: Vec<ModelReport<'a>>,
    omitted: u32,
}

#[derive(Serialize)]
struct ModelReport<'a> {
    key: &'a str,
    state: String,
    bytes: u64,
    device: &'a str,
    handles: usize,
    uses: u64,
    pinned: bool,
    /// `null`: for ever.
    keep_alive_s: Option<f64>,
    /// Seconds since the last handle was dropped; `null` while there is one, or none was.
    idle_s: Option<f64>,
    /// Seconds since the Unix epoch.
    loaded_at: Option<f64>,
    failure: Option<&'a str>,
}

impl<'a> Report<'a> {
    pub(super) fn of(session: &'a str, processes: &'a [ProcessModels], silent: usize) -> Self {
        Self { session, silent, processes: processes.iter().map(ProcessReport::of).collect() }
    }
}

impl<'a> ProcessReport<'a> {
    fn of(process: &'a ProcessModels) -> Self {
        Self {
            pid: process.pid,
            program: &process.program,
            registry: format!("{:016x}", process.incarnation),
            stale: process.is_stale,
            silent_s: process.silent_for.as_secs_f64(),
            memory_budget: process.memory_budget,
            models: process.models.iter().map(ModelReport::of).collect(),
            omitted: process.omitted,
        }
    }
}

impl<'a> ModelReport<'a> {
    fn of(model: &'a ModelInfo) -> Self {
        Self {
            key: &model.key,
            state: model.state.to_string(),
            bytes: model.bytes,
            device: model.device.as_str(),
            handles: model.handles,
            uses: model.uses,
            pinned: model.pinned,
            keep_alive_s: match model.keep_alive {
                KeepAlive::For(time) => Some(time.as_secs_f64()),
                KeepAlive::Forever => None,
            },
            idle_s: idle(model).map(|idle| idle.as_secs_f64()),
            loaded_at: model.loaded_at.and_then(since_epoch).map(|time| time.as_secs_f64()),
            failure: model.failure.as_deref(),
        }
    }
}

/// What people are shown.
pub(super) fn text(session: &str, processes: &[ProcessModels], silent: usize) -> String {
    let mut text = if processes.iter().all(|process| process.models.is_empty()) {
        let programs = output::count(processes.len(), "program announces", "programs announce");
        format!("no models in session {session:?}: {programs} models there\n")
    } else {
        format!("session {session}\n{}", output::table(&rows(processes), &[2, 5, 6]))
    };
    if silent > 0 {
        let processes = output::count(silent, "program has models and says", "programs have models and say");
        text.push_str(&format!("{processes} nothing: stopped or hanging? `tensorbus ps` shows who is stopped\n"));
    }
    text
}

fn rows(processes: &[ProcessModels]) -> Vec<Vec<String>> {
    let head = ["MODEL", "STATE", "PROCESS", "PROGRAM", "DEVICE", "SIZE", "HANDLES", "IDLE", "KEEP-ALIVE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for process in processes {
        for model in &process.models {
            let stale = if process.is_stale { " (stale)" } else { "" };
            rows.push(vec![
                model.key.clone(),
                format!("{}{stale}", model.state),
                process.pid.to_string(),
                process.program.clone(),
                model.device.to_string(),
                HumanBytes(model.bytes).to_string(),
                model.handles.to_string(),
                idle(model).map_or("-".to_owned(), |idle| HumanDuration(idle).to_string()),
                keep_alive(model),
            ]);
        }
        if process.omitted > 0 {
            rows.push(vec![format!("and {} more", process.omitted), String::new(), process.pid.to_string()]);
        }
    }
    rows
}

fn keep_alive(model: &ModelInfo) -> String {
    match (model.pinned, model.keep_alive) {
        (true, _) => "pinned".to_owned(),
        (false, _) if model.state == ModelState::Failed => "-".to_owned(),
        (false, KeepAlive::Forever) => "for ever".to_owned(),
        (false, KeepAlive::For(Duration::ZERO)) => "while in use".to_owned(),
        (false, KeepAlive::For(time)) => HumanDuration(time).to_string(),
    }
}

fn idle(model: &ModelInfo) -> Option<Duration> {
    if !matches!(model.state, ModelState::Idle | ModelState::Loaded) {
        return None;
    }
    // A clock that was set back makes it none at all.
    Some(SystemTime::now().duration_since(model.last_used?).unwrap_or_default())
}

fn since_epoch(time: SystemTime) -> Option<Duration> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok()
}

/// Everything but the times.
pub(super) fn without_times(processes: &[ProcessModels]) -> String {
    let mut text = String::new();
    for process in processes {
        text.push_str(&format!("{} {:x} {} {}\n", process.pid, process.incarnation, process.is_stale, process.omitted));
        for model in &process.models {
            let ModelInfo { key, state, bytes, handles, pinned, keep_alive, failure, .. } = model;
            text.push_str(&format!("{key} {state} {bytes} {handles} {pinned} {keep_alive:?} {failure:?}\n"));
        }
    }
    text
}
