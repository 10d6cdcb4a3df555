//! Connections that iceoryx2 has just made, on their way to the port for which it made them.
//!
//! iceoryx2 makes connections in the middle of its calls, and gives them to nobody. So each leaves a share of itself here, and
//! the port that made the call takes it afterwards, in the same thread. Nothing may stay here, whatever comes of the call: the
//! next port of the thread would take it for its own.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::incoming::Queue;
use super::outgoing::Link;

/// What one call has made: the sending sides for a publisher, the receiving sides for a subscriber.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) links: Vec<Arc<Link>>,
    pub(super) queues: Vec<Arc<Queue>>,
}

thread_local! {
    static MADE: RefCell<Made> = const { RefCell::new(Made { links: Vec::new(), queues: Vec::new() }) };
    /// Whether there are any: asked for each message, and cheaper to ask than the lists.
    static ANY: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn add_link(link: &Arc<Link>) {
    MADE.with_borrow_mut(|made| made.links.push(Arc::clone(link)));
    ANY.set(true);
}

pub(super) fn add_queue(queue: &Arc<Queue>) {
    MADE.with_borrow_mut(|made| made.queues.push(Arc::clone(queue)));
    ANY.set(true);
}

#[inline]
pub(super) fn any() -> bool {
    ANY.get()
}

/// By whoever made the call.
pub(super) fn take_made() -> Made {
    ANY.set(false);
    // A thread that is about to end has none any more.
    let mut made = MADE.try_with(RefCell::take).unwrap_or_default();
    // Where iceoryx2 dropped its share, what it was made for came to nothing.
    made.links.retain(|link| Arc::strong_count(link) > 1);
    made.queues.retain(|queue| Arc::strong_count(queue) > 1);
    made
}

/// After a call that ended in a panic, or was one for a port that lets iceoryx2 send and receive.
pub(super) fn forget_made() {
    drop(take_made());
}

#[cfg(test)]
mod tests {
    use iceoryx2_bb_container::semantic_string::SemanticString;
    use iceoryx2_bb_system_types::file_name::FileName;
    use iceoryx2_bb_system_types::path::Path;
    use iceoryx2_cal::named_concept::{NamedConceptBuilder, NamedConceptConfiguration, NamedConceptMgmt};
    use iceoryx2_cal::zero_copy_connection::ZeroCopyConnectionBuilder;
    use tempfile::TempDir;

    use super::super::connection::{SharedBuilder, SharedConnection, SharedReceiver, SharedSender};
    use super::super::shield::shield;
    use super::*;

    /// Both sides of a real connection, as iceoryx2 makes them for its ports.
    fn connect(directory: &TempDir) -> (SharedSender, SharedReceiver) {
        let path = Path::new(directory.path().as_os_str().as_encoded_bytes()).unwrap();
        let config = <SharedConnection as NamedConceptMgmt>::Configuration::default().path_hint(&path);
        let builder = || SharedBuilder::new(&FileName::new(b"connection").unwrap()).config(&config);
        (builder().create_sender().unwrap(), builder().create_receiver().unwrap())
    }

    fn directory() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_a_call_made_is_taken_once() {
        let directory = directory();
        let sides = connect(&directory);
        assert!(any());
        let made = take_made();
        assert_eq!((made.links.len(), made.queues.len()), (1, 1));
        assert!(!any());
        let again = take_made();
        assert_eq!((again.links.len(), again.queues.len()), (0, 0));
        drop(sides);
    }

    #[test]
    fn what_came_to_nothing_is_closed() {
        let directory = directory();
        drop(connect(&directory));
        let made = take_made();
        assert_eq!((made.links.len(), made.queues.len()), (0, 0));
        assert!(!left_anything(&directory), "nobody has a share of it");
    }

    /// iceoryx2 panics after it has made connections: they are kept, and closed, by whoever it made them for.
    #[test]
    fn a_panic_leaves_nothing_to_other_ports_of_the_thread() {
        let directory = directory();
        let mut kept = None;
        shield(|| {
            kept = Some(connect(&directory));
            panic!("a segment is gone");
        })
        .unwrap_err();
        assert!(!any());
        let made = take_made();
        assert_eq!((made.links.len(), made.queues.len()), (0, 0));
        assert!(left_anything(&directory));
        drop(kept);
        assert!(!left_anything(&directory), "nobody else has a share of it");
    }

    fn left_anything(directory: &TempDir) -> bool {
        std::fs::read_dir(directory.path()).unwrap().next().is_some()
    }
}
