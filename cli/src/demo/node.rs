//! The processes of the demo: what each is called, is told, and runs.

use std::fmt;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::lifeline::{Lifeline, OnClose};
use super::{baseline, camera, classify, memory, preprocess, sink};

/// What a process of the demo does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Role {
    Camera,
    Preprocess,
    /// Three nodes in one process, which share one model.
    Classify,
    /// One more, in a process of its own, which shares the model's weights.
    #[value(name = "classify-2")]
    Classify2,
    Sink,
    SocketWriter,
    SocketReader,
    /// Holds the models of three nodes, and says what they take.
    ThreeModels,
    /// Holds that of one more.
    OneModel,
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
    /// Those that say what models take: share them.
    #[arg(long)]
    pub(super) share: bool,
}

impl Role {
    /// Whether it is a member of the session.
    pub(super) fn is_on_bus(self) -> bool {
        matches!(self, Self::Camera | Self::Preprocess | Self::Classify | Self::Classify2 | Self::Sink)
    }

    /// How many others a frame passes before it comes to this one.
    pub(super) fn stage(self) -> usize {
        match self {
            Self::Camera | Self::SocketWriter | Self::ThreeModels | Self::OneModel => 0,
            Self::Preprocess | Self::SocketReader => 1,
            Self::Classify | Self::Classify2 => 2,
            Self::Sink => 3,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Camera => "camera",
            Self::Preprocess => "preprocess",
            Self::Classify => "classify",
            Self::Classify2 => "classify-2",
            Self::Sink => "sink",
            Self::SocketWriter => "socket-writer",
            Self::SocketReader => "socket-reader",
            Self::ThreeModels => "three-models",
            Self::OneModel => "one-model",
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
        Role::Classify => classify::run(options, &lifeline, 0..classify::TOGETHER),
        Role::Classify2 => classify::run(options, &lifeline, classify::TOGETHER..classify::NODES),
        Role::Sink => sink::run(options, &lifeline),
        Role::SocketWriter => baseline::write(options, &lifeline),
        Role::SocketReader => baseline::read(options, &lifeline),
        Role::ThreeModels => memory::run(options, &lifeline, classify::TOGETHER),
        Role::OneModel => memory::run(options, &lifeline, classify::NODES - classify::TOGETHER),
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
