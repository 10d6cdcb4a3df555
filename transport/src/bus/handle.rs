use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::backend::{self, Backend, BackendChoice, Places};
use super::deaths::Deaths;
use super::service_thread::ServiceThread;
use super::session::{self, DEFAULT_SESSION, SESSION_VARIABLE, Session, SessionError, SessionFacts};
use super::topics::{self, TopicInfo};
use crate::control::ServiceBuilder;
use crate::port::{Cleaned, Node, NodeError, TopicError};
use crate::request_ring::RingBuilder;
use crate::topic::TopicBuilder;

/// This process's place in a session: where topics are opened. Cheap to clone; all clones are one member.
///
/// A session is one isolated bus on one machine: a directory of mode 0700 that holds every shared object of its
/// members. Programs of one user that name the same session see each other's topics, all others do not. The last
/// member that leaves removes the directory; if all were killed, the next one that enters clears it first.
///
/// Publishers, subscribers and received tensors keep the bus open, in whatever order they are dropped.
///
/// A bus does not survive `fork()`: in the child every call gives an error, and dropping does nothing to the parent.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tensorbus_transport::{Bus, Dtype};
///
/// let bus = Bus::builder().session("doc-bus").open()?;
/// let subscriber = bus.topic("numbers").subscriber()?;
/// let publisher = bus.topic("numbers").publisher()?;
///
/// let mut numbers = publisher.loan(Dtype::F32, &[2, 2])?;
/// numbers.view_mut::<f32>()?.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
/// numbers.publish()?;
///
/// let message = subscriber.recv(Duration::from_secs(1))?;
/// assert_eq!(message.first().view::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    pub(super) inner: Arc<BusInner>,
}

/// Dropped in the order of its fields: the thread ends, then the node leaves while the session is still held.
#[derive(Debug)]
pub(crate) struct BusInner {
    service_thread: Option<ServiceThread>,
    pub(crate) node: Node,
    session: Session,
    backend: BackendChoice,
}

/// Settings of a [`Bus`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct BusBuilder {
    session: Option<String>,
    backend: Option<Backend>,
    directory: Option<PathBuf>,
    service_interval: Option<Duration>,
    quota_bytes: Option<u64>,
}

/// What the pools and blobs of a session may take, and take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Quota {
    /// Bytes that all pools and blobs of the session together may take.
    pub bytes: u64,
    /// Bytes that they take: pools of every publisher, and of publishers that are gone while a subscriber still maps their
    /// pool; blobs that somebody uses or writes.
    pub used: u64,
}

/// What [`Bus::remove_dead`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CleanedUp {
    /// Dead processes whose objects were removed.
    pub removed: usize,
    /// Dead processes whose objects could not be removed; another process may be at it.
    pub failed: usize,
    /// Pools and connections that belonged to nobody any more and were removed.
    pub stale_files: usize,
}

impl From<Cleaned> for CleanedUp {
    fn from(cleaned: Cleaned) -> Self {
        let Cleaned { removed, failed, stale_files } = cleaned;
        Self { removed, failed, stale_files }
    }
}

impl Bus {
    /// Joins the session that the environment variable `TENSORBUS_SESSION` names, or the session `default`.
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be joined.
    pub fn open() -> Result<Self, SessionError> {
        Self::builder().open()
    }

    /// A bus with settings of its own.
    pub fn builder() -> BusBuilder {
        BusBuilder::default()
    }

    /// The topic of this name, to be opened with settings. Nothing happens before a port is made.
    pub fn topic(&self, name: &str) -> TopicBuilder {
        TopicBuilder::new(self.inner.clone(), name)
    }

    /// The control service of this name: small requests to one server, and replies. Nothing happens before a port is made.
    pub fn service(&self, name: &str) -> ServiceBuilder {
        ServiceBuilder::new(self.inner.clone(), name)
    }

    /// The request ring of this name, to be opened by a client or a worker. Nothing happens before.
    pub fn ring(&self, name: &str) -> RingBuilder {
        RingBuilder::new(self.inner.clone(), name)
    }

    /// Name of the session; with [`Backend::Local`] the mark of this process included.
    pub fn session(&self) -> &str {
        self.inner.session.name()
    }

    /// The directory that holds everything of the session.
    pub fn directory(&self) -> &Path {
        self.inner.session.directory()
    }

    /// Which backend this bus has, and why it has no other.
    pub fn backend(&self) -> &BackendChoice {
        &self.inner.backend
    }

    /// Removes what killed processes left in the session: their ports, pools and registrations.
    ///
    /// Happens by itself whenever a process joins, opens a topic, or leaves. A process that runs for long among others
    /// that may be killed calls it now and then, or has it done by a [service thread](BusBuilder::service_thread).
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at.
    pub fn remove_dead(&self) -> Result<CleanedUp, SessionError> {
        let cleaned = self.inner.node.remove_dead().map_err(|error| self.inner.error(error))?;
        Ok(cleaned.into())
    }

    /// What dead processes had left in the session and was removed when this bus was opened.
    pub fn cleaned_on_opening(&self) -> CleanedUp {
        self.inner.node.cleaned().into()
    }

    /// Follows the deaths of members of the session from now on.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use tensorbus_transport::Bus;
    /// let bus = Bus::builder().session("doc-deaths").service_thread(Duration::from_millis(50)).open()?;
    /// let mut deaths = bus.deaths()?;
    /// if let Some(death) = deaths.recv(Duration::from_millis(10))? {
    ///     println!("process {} died", death.pid);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at. Each takes one of the inotify instances that the system
    /// gives a user (`fs.inotify.max_user_instances`, often 128).
    pub fn deaths(&self) -> Result<Deaths, SessionError> {
        if !self.inner.is_ours() {
            return Err(SessionError::Forked);
        }
        Deaths::follow(self.inner.clone())
    }

    /// The background thread of this bus, if it was opened with one.
    pub fn service_thread(&self) -> Option<&ServiceThread> {
        self.inner.service_thread.as_ref()
    }

    /// The topics of the session, by name.
    ///
    /// # Errors
    /// [`TopicError`] if the session cannot be looked at.
    pub fn topics(&self) -> Result<Vec<TopicInfo>, TopicError> {
        topics::list(&self.inner.node)
    }

    /// Process ids of the session's living members, this one included, and of dead ones not yet cleaned up.
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at.
    pub fn members(&self) -> Result<(Vec<u32>, Vec<u32>), SessionError> {
        self.inner.node.members().map_err(|error| self.inner.error(error))
    }

    /// The session's quota and its use, once what dead processes left is removed. `None` if it has no quota.
    ///
    /// # Errors
    /// [`SessionError`] if the session cannot be looked at.
    pub fn quota(&self) -> Result<Option<Quota>, SessionError> {
        let quota = self.inner.node.quota().map_err(|error| self.inner.error(error))?;
        Ok(quota.map(|(bytes, used)| Quota { bytes, used }))
    }

    /// Sessions of this user on this machine, those left by dead processes included, of every backend.
    ///
    /// # Errors
    /// If a directory of sessions cannot be read.
    pub fn sessions() -> std::io::Result<Vec<SessionFacts>> {
        let mut found = Vec::new();
        for base in Places::of_this_machine().all() {
            found.extend(session::sessions(&base)?);
        }
        Ok(found)
    }

    /// The directory that sessions lie in by default: [`Capabilities::backend`](crate::Capabilities::backend) says which
    /// one and why. `/dev/shm` if none can be used.
    pub fn default_directory() -> PathBuf {
        Places::of_this_machine().choose(None).map_or_else(|_| "/dev/shm".into(), |choice| choice.directory)
    }
}

impl BusBuilder {
    /// Name of the session. Default: the environment variable `TENSORBUS_SESSION`, else `default`.
    pub fn session(mut self, name: &str) -> Self {
        self.session = Some(name.to_owned());
        self
    }

    /// Where the session's files lie. Default: the environment variable `TENSORBUS_BACKEND`, else [`Backend::Shm`] where
    /// it can be used, else [`Backend::File`].
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Directory that the session's directory is made in. Default: that of the backend.
    pub fn directory(mut self, base: impl Into<PathBuf>) -> Self {
        self.directory = Some(base.into());
        self
    }

    /// Bytes that the pools of all the session's publishers, and its blobs, together may take. Default: what the session has; one in which
    /// nobody names a quota has none.
    ///
    /// The first member that names a quota fixes it for the life of the session. A pool that does not fit is refused with
    /// [`PoolError::Quota`](crate::PoolError::Quota). What counts is what exists at that moment: the pools of all publishers
    /// that live, those of departed ones as long as a subscriber maps them, and blobs in use. Whoever is killed gives back what it had, and
    /// nobody has to count. Other files of a session, some kilobytes for each topic and port, do not count.
    ///
    /// With a quota, the memory of a publisher that left while a subscriber still mapped it is given back at the next change
    /// of the session after that: when somebody joins, leaves, opens or closes a topic, or calls
    /// [`remove_dead`](Bus::remove_dead).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tensorbus_transport::{Bus, PoolError, TopicError};
    ///
    /// let bus = Bus::builder().session("doc-quota").quota_bytes(1 << 20).open()?;
    /// let _small = bus.topic("small").slots(2).slot_bytes(64 << 10).publisher()?;
    /// let refused = bus.topic("large").slots(2).slot_bytes(1 << 20).publisher();
    /// assert!(matches!(refused, Err(TopicError::Pool(PoolError::Quota { .. }))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn quota_bytes(mut self, bytes: u64) -> Self {
        self.quota_bytes = Some(bytes);
        self
    }

    /// Starts a background thread that looks after the session and the ports of this bus once in each interval, of at
    /// least a millisecond: see [`ServiceThread`]. Default: none.
    ///
    /// One process of a session is enough to remove what killed ones leave; a publisher's history reaches late joiners
    /// at once only where its own process has one. 100 ms is a good interval: a tick in which nothing has happened
    /// takes some microseconds for each member and port.
    pub fn service_thread(mut self, interval: Duration) -> Self {
        self.service_interval = Some(interval);
        self
    }

    /// Joins the session.
    ///
    /// # Errors
    /// [`SessionError`] if the name is not legal, no place for the session can be used, the directory is not private,
    /// the session has another quota, or the system refuses.
    pub fn open(self) -> Result<Bus, SessionError> {
        let name = self
            .session
            .or_else(|| std::env::var(SESSION_VARIABLE).ok().filter(|name| !name.is_empty()))
            .unwrap_or_else(|| DEFAULT_SESSION.to_owned());
        // A name that has the mark of a process is that of a session which another one made for its children.
        let asked = self.backend.or(session::split_mark(&name).1.then_some(Backend::Local));
        let backend = match &self.directory {
            Some(directory) => backend::of_directory(directory, asked),
            None => Places::of_this_machine().choose(asked)?,
        };
        let name = if backend.backend == Backend::Local { session::local_name(&name) } else { name };
        let session = Session::enter(&backend.directory, &name)?;
        let node = Node::join(session.directory()).map_err(|error| session_error(session.directory(), error))?;
        let service_thread = self.service_interval.map(|interval| ServiceThread::start(&node, interval)).transpose();
        let service_thread =
            service_thread.map_err(|reason| SessionError::Io { path: session.directory().to_owned(), reason })?;
        let inner = BusInner { service_thread, node, session, backend };
        if let Some(requested) = self.quota_bytes {
            let existing = inner.node.set_quota(requested).map_err(|error| inner.error(error))?;
            if existing != requested {
                return Err(SessionError::Quota { session: name, existing, requested });
            }
        }
        Ok(Bus { inner: Arc::new(inner) })
    }
}

impl BusInner {
    pub(crate) fn is_ours(&self) -> bool {
        self.session.is_ours()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.session.directory()
    }

    fn error(&self, error: NodeError) -> SessionError {
        session_error(self.session.directory(), error)
    }
}

pub(super) fn session_error(directory: &Path, error: NodeError) -> SessionError {
    let path = directory.to_owned();
    match error {
        NodeError::PathTooLong => SessionError::PathTooLong { path },
        NodeError::Forked => SessionError::Forked,
        NodeError::Failed(reason) => SessionError::Failed { path, reason },
    }
}
