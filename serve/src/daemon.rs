use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tensorbus_registry::{DirectoryError, DirectoryService};
use tensorbus_transport::{Bus, BusBuilder, CallError, ServiceBuilder, ServiceError, SessionError};
use tokio::net::TcpListener;

use crate::http;
use crate::watch::Watch;

/// Where a daemon's metrics and health are, if nothing else is said: port 9464 of this machine alone.
pub const DEFAULT_HTTP: &str = "127.0.0.1:9464";

/// How often the daemon looks after the session.
const INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for a daemon to say who it is.
const ANSWER: Duration = Duration::from_secs(2);

/// The one daemon of a session: removes within a tenth of a second what killed processes leave, watches the directory of models,
/// answers who asks for it ([`DirectoryClient`](tensorbus_registry::DirectoryClient)), and shows both over HTTP.
///
/// - `GET /metrics`: Prometheus' text format: processes, deaths, models, topics and memory of the session
/// - `GET /healthz`: `200` and a JSON object while it looks after the session, else `503`
///
/// It keeps no state: one that was killed and started again knows everything within a second. Sessions work without one, but nobody
/// may remove what killed processes leave before the next one joins.
///
/// ```no_run
/// # async fn daemon() -> Result<(), tensorbus_serve::DaemonError> {
/// use tensorbus_serve::{DEFAULT_HTTP, Daemon};
/// use tensorbus_transport::Bus;
///
/// let daemon = Daemon::open(Bus::builder().session("robot"), DEFAULT_HTTP.parse().unwrap()).await?;
/// println!("http://{}/metrics", daemon.http());
/// daemon.run(std::future::pending()).await
/// # }
/// ```
pub struct Daemon {
    watch: Arc<Watch>,
    listener: TcpListener,
    http: SocketAddr,
}

/// Who is the daemon of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Where its metrics and health are.
    pub http: SocketAddr,
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The session cannot be joined or looked at.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The session has a daemon.
    #[error("session {session:?} has a daemon: {}; end that one, or name another session", holder.as_ref().map_or_else(
        || "it does not say who it is".to_owned(),
        |holder| format!("process {}, http://{}", holder.pid, holder.http),
    ))]
    Taken {
        /// The session.
        session: String,
        /// The daemon, if it answers.
        holder: Option<Holder>,
    },
    /// The daemon's place in the session cannot be had.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The directory of models cannot be listened to.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The address cannot be had.
    #[error("cannot listen on {address}: {reason}; choose another address or port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: std::io::Error,
    },
    /// What happened while it ran.
    #[error("the daemon cannot go on: {0}")]
    Io(#[from] std::io::Error),
}

impl Daemon {
    /// Becomes the daemon of a session, and listens on an address. With port 0 the system chooses one.
    ///
    /// # Errors
    /// [`DaemonError::Taken`] if the session has a daemon, others if session or address cannot be had.
    pub async fn open(session: BusBuilder, http: SocketAddr) -> Result<Self, DaemonError> {
        let bus = session.service_thread(INTERVAL).open()?;
        let server = service(&bus).server().map_err(|error| match error {
            ServiceError::HasServer { .. } => DaemonError::Taken {
                session: bus.session().to_owned(),
                holder: ask(&bus).unwrap_or_else(|error| {
                    tracing::debug!(%error, "the daemon of the session does not answer");
                    None
                }),
            },
            error => error.into(),
        })?;
        let cannot = |reason| DaemonError::Listen { address: http, reason };
        let listener = TcpListener::bind(http).await.map_err(cannot)?;
        let http = listener.local_addr().map_err(cannot)?;
        let directory = DirectoryService::open(&bus)?;
        let watch = Watch::start(bus, server, directory, Holder { pid: std::process::id(), http })?;
        Ok(Self { watch: Arc::new(watch), listener, http })
    }

    /// Where its metrics and health are.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Answers until `stop` is ready. Then the daemon leaves the session.
    ///
    /// # Errors
    /// [`DaemonError::Io`] if the listening socket fails.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), DaemonError> {
        let Self { watch, listener, .. } = self;
        let (session, pid) = (watch.bus().session().to_owned(), std::process::id());
        tracing::info!(session, pid, http = %self.http, "the daemon looks after the session");
        axum::serve(listener, http::router(watch)).with_graceful_shutdown(stop).await?;
        tracing::info!(session, pid, "the daemon leaves the session");
        Ok(())
    }
}

/// The control service that a session's one daemon has: small, as its question and a [`Holder`] are.
fn service(bus: &Bus) -> ServiceBuilder {
    bus.service("tensorbus/daemon").max_request_bytes(64).max_reply_bytes(256).max_clients(8)
}

/// Asks the daemon of a session who it is.
fn ask(bus: &Bus) -> Result<Option<Holder>, Box<dyn std::error::Error>> {
    match service(bus).client()?.call(b"who", ANSWER) {
        Ok(reply) => Ok(Some(serde_json::from_slice(&reply)?)),
        Err(CallError::NoServer { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
