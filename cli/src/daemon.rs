//! `tensorbus daemon`: looks after a session.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use sd_notify::NotifyState;
use tensorbus_serve::{DEFAULT_HTTP, Daemon};
use tokio::signal::unix::{SignalKind, signal};

use crate::session::SessionArg;

/// Look after a session, until it is told to stop
///
/// Removes within a tenth of a second what killed processes leave, and shows processes, models, topics and memory of the session to
/// Prometheus (/metrics) and to supervisors (/healthz). A session has one daemon. Ends at SIGTERM and SIGINT.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArg,
    /// Address of /metrics and /healthz. Anything but this machine's own addresses opens them to the network. Port 0: any
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_HTTP)]
    http: SocketAddr,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no async runtime")?;
    runtime.block_on(daemon(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn daemon(args: Args) -> anyhow::Result<()> {
    // Before anything is there that a signal could leave behind.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let daemon = Daemon::open(args.session.builder(), args.http).await?;
    crate::output::note(&format!("listening on http://{}", daemon.http()));
    // Where no service manager asks for it, nothing happens.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let stop = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    };
    Ok(daemon.run(stop).await?)
}
