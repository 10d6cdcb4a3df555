//! How receivers that sleep are woken: a board of bells for each service, and a socket for each receiver.
//!
//! A service is a topic, whose subscribers are woken, or a control service, whose server and clients wake each other.
//!
//! iceoryx2's events would do it too, for eight descriptors a service and a system call for most messages; and each listener changes
//! the umask of the whole process for a moment, for ever if two threads make one at the same time. Here a service costs a small
//! file, which is mapped and closed, a receiver one socket, and all senders of a bus share one. Nobody is sent a datagram
//! who is awake: `ring/bell.rs` says how that is known.
//!
//! ```text
//! board    wake/SERVICE.bells, "/" in the name written ":"; places of 64 bytes, as many as the service can have receivers, one more
//!          in front, whose `taken` counts the places up to the last that was ever taken; behind them the meters of publishers
//!          (`meter.rs`)
//! place    0  bell     u32
//!          4  taken    u32   1 while a receiver has it
//!          8  socket   u64   its socket is wake/SOCKET.ear, in hexadecimal
//! ```
//!
//! Places are taken and left in turns. A place whose socket nobody listens to is of a dead receiver, and is taken again.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix, bind, connect, recv, sendto};

use super::meter::MeterPlace;
use super::service;
use crate::os::{Mapping, reserve};
use crate::ring::Bell;

/// Folder of a session that holds boards and sockets.
const FOLDER: &str = "wake";
/// Endings of its files.
const BOARD: &str = ".bells";
const SOCKET: &str = ".ear";

#[derive(Debug)]
#[repr(C)]
#[repr(align(64))]
struct Place {
    bell: Bell,
    taken: AtomicU32,
    socket: AtomicU64,
}

const _: () = assert!(size_of::<Place>() == 64 && size_of::<MeterPlace>() == 64);

/// The bells of a service, and the meters of its publishers.
#[derive(Debug)]
pub(super) struct Board {
    mapping: Mapping,
    places: usize,
    /// Meters behind the places.
    meters: usize,
    folder: PathBuf,
    /// As iceoryx2 calls it.
    service: String,
}

/// A receiver's place and socket.
#[derive(Debug)]
pub(super) struct Ear {
    board: Arc<Board>,
    place: usize,
    socket: Socket,
}

/// Where somebody hears that they are to wake up.
#[derive(Debug)]
pub(super) struct Socket {
    socket: OwnedFd,
    number: u64,
    path: PathBuf,
}

/// The socket that all senders of a bus send from.
#[derive(Debug)]
pub(super) struct Ringer {
    socket: OwnedFd,
}

impl Board {
    /// In a turn. Opens a service's board, and makes it if `is_new`: then what lies there is of an earlier service of that name.
    pub(super) fn open(
        directory: &Path,
        service: &str,
        places: usize,
        meters: usize,
        is_new: bool,
    ) -> io::Result<Self> {
        let folder = directory.join(FOLDER);
        let path = board_path(directory, service);
        let len = (places + 1) * size_of::<Place>() + meters * size_of::<MeterPlace>();
        if is_new {
            std::fs::create_dir_all(&folder)?;
            remove_if_there(&path)?;
            let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            file.set_len(len as u64)?;
            reserve(&path)?;
        }
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self { mapping: Mapping::new(&file, len)?, places, meters, folder, service: service.to_owned() })
    }

    /// Number of meters.
    pub(super) fn meters(&self) -> usize {
        self.meters
    }

    /// The meter of this index.
    #[inline]
    pub(super) fn meter(&self, index: usize) -> &MeterPlace {
        debug_assert!(index < self.meters);
        // SAFETY: `open` mapped `meters` of them behind `places + 1` places of the same size, and `index` is less than `meters`.
        let place = unsafe { self.mapping.start().cast::<MeterPlace>().add(self.places + 1 + index) };
        // SAFETY: in the mapping, which lives as long as `self`; aligned, as pages are and the places before it; consists of
        // atomics only, of which every bit pattern is a value, and which other processes change by atomic operations.
        unsafe { place.as_ref() }
    }

    /// In a turn, once nobody has the service any more.
    fn remove(directory: &Path, service: &str) {
        let _ = remove_if_there(&board_path(directory, service));
        // Goes with the last board and socket.
        let _ = std::fs::remove_dir(directory.join(FOLDER));
    }

    /// Services that have a board.
    fn services(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory.join(FOLDER)).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(BOARD)?.replace(':', "/"))).collect()
    }

    /// After something was put into the queues of all the service's receivers.
    #[inline]
    pub(super) fn ring(&self, ringer: &Ringer) {
        self.ring_those(0..self.places, ringer);
    }

    /// After something was put into the queues of the receivers in these places.
    #[inline]
    pub(super) fn ring_those(&self, places: Range<usize>, ringer: &Ringer) {
        Bell::order();
        for place in self.ever_taken(places) {
            if let Some(ring) = place.bell.sleeper() {
                ringer.send(&self.folder, place.socket.load(Ordering::Relaxed));
                place.bell.rung(ring);
            }
        }
    }

    /// Index 0 is the head.
    fn place(&self, index: usize) -> &Place {
        debug_assert!(index <= self.places);
        // SAFETY: `open` mapped `places + 1` of them, and `index` is at most `places`.
        let place = unsafe { self.mapping.start().cast::<Place>().add(index) };
        // SAFETY: in the mapping, which lives as long as `self`; aligned, as pages are; consists of atomics only, of which every
        // bit pattern is a value, and which other processes change by atomic operations.
        unsafe { place.as_ref() }
    }

    fn ever_taken(&self, places: Range<usize>) -> impl Iterator<Item = &Place> {
        // The number lies in shared memory: it counts for no more than there is.
        let taken = self.place(0).taken.load(Ordering::Acquire) as usize;
        (places.start..places.end.min(taken).min(self.places)).map(|index| self.place(index + 1))
    }
}

impl Ear {
    /// In a turn. Takes one of these places of the board; `None` if all are taken by living receivers.
    pub(super) fn new(board: &Arc<Board>, places: Range<usize>) -> io::Result<Option<Self>> {
        let mut indices = places.start + 1..places.end.min(board.places) + 1;
        let Some(index) = indices.find(|&index| board.is_free(index)) else { return Ok(None) };
        let socket = Socket::bind(&board.folder)?;
        let place = board.place(index);
        place.bell.get_up();
        place.socket.store(socket.number, Ordering::Relaxed);
        place.taken.store(1, Ordering::Relaxed);
        board.place(0).taken.fetch_max(index as u32, Ordering::Release);
        Ok(Some(Self { board: board.clone(), place: index, socket }))
    }

    /// From here on, what is sent makes the socket readable: look for messages once more, then wait.
    pub(super) fn lie_down(&self) {
        self.board.place(self.place).bell.lie_down();
    }

    /// Nobody need wake us.
    pub(super) fn get_up(&self) {
        self.board.place(self.place).bell.get_up();
    }

    /// Empties the socket.
    pub(super) fn drain(&self) -> Result<(), Errno> {
        self.socket.drain()
    }
}

impl Socket {
    /// A new one in a session.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let folder = directory.join(FOLDER);
        // Whoever leaves may take an empty folder along.
        std::fs::create_dir_all(&folder)?;
        Self::bind(&folder).or_else(|_| {
            std::fs::create_dir_all(&folder)?;
            Self::bind(&folder)
        })
    }

    fn bind(folder: &Path) -> io::Result<Self> {
        let socket = new_socket()?;
        let (number, path) = bind_somewhere(folder, &socket)?;
        Ok(Self { socket, number, path })
    }

    /// What whoever rings calls it.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Empties the socket.
    pub(super) fn drain(&self) -> Result<(), Errno> {
        loop {
            match recv(&self.socket, &mut [0; 1], RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Sleeps until a wake-up is pending at the ear that has this descriptor, or the time is over. Returns whether one is pending.
pub(super) fn wait(ear: BorrowedFd<'_>, bound: Duration) -> Result<bool, Errno> {
    let timeout = Timespec { tv_sec: bound.as_secs() as i64, tv_nsec: bound.subsec_nanos().into() };
    match poll(&mut [PollFd::from_borrowed_fd(ear, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = remove_if_there(&self.path);
    }
}

impl Drop for Ear {
    /// In a turn.
    fn drop(&mut self) {
        let place = self.board.place(self.place);
        place.bell.get_up();
        place.taken.store(0, Ordering::Relaxed);
    }
}

impl Ringer {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { socket: new_socket()? })
    }

    /// Wakes whoever hears at a socket of a session.
    pub(super) fn ring(&self, directory: &Path, socket: u64) {
        self.send(&directory.join(FOLDER), socket);
    }

    /// Whoever does not get it is dead, or has so many that one more does not matter.
    #[cold]
    fn send(&self, folder: &Path, socket: u64) {
        if let Ok(address) = SocketAddrUnix::new(socket_path(folder, socket)) {
            let _ = sendto(&self.socket, &[1], SendFlags::DONTWAIT, &address);
        }
    }
}

/// In a turn, when processes were found dead: wakes everybody, in case one died between sending a message and ringing.
pub(super) fn wake_all(directory: &Path) {
    let ringer = match Ringer::new() {
        Ok(ringer) => ringer,
        Err(error) => return tracing::warn!(%error, "no socket to wake those with that may wait for a dead process"),
    };
    for path in sockets(directory) {
        if let Ok(address) = SocketAddrUnix::new(path) {
            let _ = sendto(&ringer.socket, &[1], SendFlags::DONTWAIT, &address);
        }
    }
}

/// In a turn, after dead processes were removed: removes the sockets that nobody listens to, and the boards of services that
/// nobody has any more.
pub(super) fn remove_deserted(directory: &Path) {
    for path in sockets(directory) {
        if !is_heard(&path) {
            let _ = remove_if_there(&path);
        }
    }
    for service in Board::services(directory) {
        if !service::exists(directory, &service) {
            Board::remove(directory, &service);
        }
    }
}

fn sockets(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(directory.join(FOLDER)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == &SOCKET[1..]))
}

impl Drop for Board {
    /// In a turn, after the port that had it. The last one takes the board along.
    fn drop(&mut self) {
        let Some(directory) = self.folder.parent() else { return };
        if !service::exists(directory, &self.service) {
            Self::remove(directory, &self.service);
        }
    }
}

impl Board {
    /// In a turn.
    fn is_free(&self, index: usize) -> bool {
        let place = self.place(index);
        if place.taken.load(Ordering::Relaxed) == 0 {
            return true;
        }
        let path = socket_path(&self.folder, place.socket.load(Ordering::Relaxed));
        if is_heard(&path) {
            return false;
        }
        let _ = remove_if_there(&path);
        true
    }
}

fn board_path(directory: &Path, service: &str) -> PathBuf {
    directory.join(FOLDER).join(format!("{}{BOARD}", service.replace('/', ":")))
}

fn socket_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:x}{SOCKET}"))
}

fn new_socket() -> io::Result<OwnedFd> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_somewhere(folder: &Path, socket: &OwnedFd) -> io::Result<(u64, PathBuf)> {
    loop {
        let number = RandomState::new().build_hasher().finish();
        let path = socket_path(folder, number);
        match bind(socket, &SocketAddrUnix::new(&path)?) {
            Ok(()) => return Ok((number, path)),
            Err(Errno::ADDRINUSE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether a living process has the socket.
fn is_heard(path: &Path) -> bool {
    let heard = || -> io::Result<bool> {
        let probe = new_socket()?;
        match connect(&probe, &SocketAddrUnix::new(path)?) {
            Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
            // Whatever else it is, it is not known to be dead.
            _ => Ok(true),
        }
    };
    heard().unwrap_or(true)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
