//! FR-005: a message costs the heap a small and constant number of allocations, however large its tensors are.
//!
//! A test program of its own: it counts what its allocator does.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

use allocation_counter::{AllocationInfo, measure};
use tensorbus::prelude::*;

const MESSAGES: u64 = 100;
/// iceoryx2's sample.
const PER_PUBLISH: u64 = 1;
/// The message that the tensors share.
const PER_RECEIVE: u64 = 1;

/// Sums over some calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cost {
    allocations: u64,
    bytes: u64,
    /// Allocations that were not freed again, less those freed that others had made.
    kept: i64,
}

impl Cost {
    fn add(&mut self, one: AllocationInfo) {
        self.allocations += one.count_total;
        self.bytes += one.bytes_total;
        self.kept += one.count_current;
    }
}

/// What 100 messages of this size take from the heap: publishing, then receiving and dropping.
fn cost(bytes: usize) -> (Cost, Cost) {
    let session = format!("alloc-{}", std::process::id());
    let bus = Bus::builder().session(&session).open().unwrap();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let publisher = bus.topic("numbers").slots(2).slot_bytes(bytes).publisher().unwrap();
    let publish = || assert_eq!(publisher.loan(Dtype::U8, &[bytes]).unwrap().publish().unwrap(), 1);
    let receive = || assert_eq!(subscriber.try_recv().unwrap().unwrap().first().bytes().len(), bytes);
    // The first messages make what is kept for all later ones.
    for _ in 0..20 {
        publish();
        receive();
    }
    let (mut published, mut received) = (Cost::default(), Cost::default());
    for _ in 0..MESSAGES {
        published.add(measure(publish));
        received.add(measure(receive));
    }
    (published, received)
}

#[test]
fn allocations_are_few_and_do_not_grow_with_the_tensor() {
    let (publish, receive) = cost(1 << 10);
    println!("{MESSAGES} messages of 1 KiB: publish {publish:?}, receive {receive:?}");
    assert!(publish.allocations <= PER_PUBLISH * MESSAGES, "{publish:?}");
    assert!(receive.allocations <= PER_RECEIVE * MESSAGES, "{receive:?}");
    assert_eq!((publish.kept, receive.kept), (0, 0), "something is kept of each message");
    assert_eq!(cost(100 << 20), (publish, receive), "100 MiB against 1 KiB");
}
