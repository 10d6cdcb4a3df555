use std::ops::{Deref, DerefMut};

/// A port of iceoryx2, or a slot that it loaned.
///
/// iceoryx2's thread-safe variant makes a recursive mutex for each loan and locks one fourteen times on the way of a message,
/// which is a good part of a hand-over. Ours takes no locks (`SingleThreaded`): a port and what it loaned share state by
/// counts that are not atomic, and the types are not `Send`. So they live in this wrapper, and whoever makes one promises
/// what its mutexes did: **one lock for each port, held around every call, clone and drop of the port, of its loans, and of the
/// shares in its connections.** The lock is that of the `Sender` or `Receiver`.
#[derive(Debug)]
pub(super) struct Alone<T>(T);

impl<T> Alone<T> {
    /// # Safety
    /// The value is a port of this module or what it loaned, and every use of it, its drop included, happens while the lock of its port is
    /// held, or while nobody else can have a part of the same port.
    pub(super) unsafe fn new(value: T) -> Self {
        Self(value)
    }

    pub(super) fn into_inner(self) -> T {
        self.0
    }
}

// SAFETY: all that keeps the wrapped types of iceoryx2 from being `Send` is state that a port and its samples share by
// `Rc`: with any policy that is thread-safe they are `Send`. `new` is promised that this state is used under one lock.
unsafe impl<T> Send for Alone<T> {}

impl<T> Deref for Alone<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Alone<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
