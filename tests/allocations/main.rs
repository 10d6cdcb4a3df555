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

/// What 100 messages of this size take from the heap: publishing, then receiving and dropping.
fn cost(bytes: usize) -> (AllocationInfo, AllocationInfo) {
    let session = format!("alloc-{}", std::process::id());
    let bus = Bus::builder().session(&session).open().unwrap();
    let topic = || bus.topic("numbers").depth(MESSAGES as usize);
    let subscriber = topic().subscriber().unwrap();
    // Nothing is written: slots without memory behind them will do.
    let publisher = topic().slots(MESSAGES as usize + 2).slot_bytes(bytes).prefault(false).publisher().unwrap();
    let publish = || {
        for _ in 0..MESSAGES {
            assert_eq!(publisher.loan(Dtype::U8, &[bytes]).unwrap().publish().unwrap(), 1);
        }
    };
    let receive = || {
        for _ in 0..MESSAGES {
            assert_eq!(subscriber.try_recv().unwrap().unwrap().first().bytes().len(), bytes);
        }
        assert!(subscriber.try_recv().unwrap().is_none());
    };
    // The first messages make what is kept for all later ones.
    publish();
    receive();
    (measure(publish), measure(receive))
}

#[test]
fn allocations_are_few_and_do_not_grow_with_the_tensor() {
    let (publish, receive) = cost(1 << 10);
    println!("{MESSAGES} messages of 1 KiB: publish {publish:?}, receive {receive:?}");
    assert!(publish.count_total <= PER_PUBLISH * MESSAGES, "{publish:?}");
    assert!(receive.count_total <= PER_RECEIVE * MESSAGES, "{receive:?}");
    assert_eq!((publish.count_current, receive.count_current), (0, 0), "something is kept of each message");
    let large = cost(100 << 20);
    let numbers = |info: AllocationInfo| (info.count_total, info.bytes_total, info.bytes_max);
    assert_eq!((numbers(large.0), numbers(large.1)), (numbers(publish), numbers(receive)), "100 MiB against 1 KiB");
}
