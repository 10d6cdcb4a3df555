//! The processes of the demo: what each is called, is told, and runs.

use std::fmt;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::lifeline::{Lifeline, OnClose};
use super::{baseline, camera, classify, preprocess, sink};

/// What a process of the demo does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Role {
    Camera,
    Preprocess,
    Classify,
    Sink,
    SocketWriter,
    SocketReader,
}

/// The processes that the demo starts. They take part in a demo that is running; nobody starts them by hand.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeOptions {
    #[arg(value_enum)]
    pub(super) role: Role,
    /// What the names of the demo's topics begin with.
    #[arg(long)]
    pub(super) demo: String,
    #[arg(long)]
    pub(super) frames: u32,
    #[arg(long)]
    pub(super) fps: u32,
}

impl Role {
    /// Whether it is a member of the session; the others only know a socket.
    pub(super) fn is_on_bus(self) -> bool {
        !matches!(self, Self::SocketWriter | Self::SocketReader)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Camera => "camera",
            Self::Preprocess => "preprocess",
            Self::Classify => "classify",
            Self::Sink => "sink",
            Self::SocketWriter => "socket-writer",
            Self::SocketReader => "socket-reader",
        })
    }
}

/// Runs one process of the demo.
pub(crate) fn run_node(options: &NodeOptions) -> anyhow::Result<ExitCode> {
    let on_close = if options.role.is_on_bus() { OnClose::Leave } else { OnClose::End };
    let lifeline = Lifeline::hold(on_close);
    let done = match options.role {
        Role::Camera => camera::run(options, &lifeline),
        Role::Preprocess => preprocess::run(options, &lifeline),
        Role::Classify => classify::run(options, &lifeline),
        Role::Sink => sink::run(options, &lifeline),
        Role::SocketWriter => baseline::write(options, &lifeline),
        Role::SocketReader => baseline::read(options, &lifeline),
    };
    // The supervisor tells the user, and names the node.
    Ok(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lifeline.failed(&error);
            ExitCode::FAILURE
        }
    })
}
