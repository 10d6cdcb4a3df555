//! Nanoseconds of single calls inside one process: for orientation, never a limit. `instructions` holds the limits.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use tensorbus::wire::{Decoder, encode_layout};
use tensorbus::{Bus, Dtype};
use tensorbus_benches::messages::{layout, message};
use tensorbus_benches::peer::scratch;
use tensorbus_benches::raw::RawNode;

const BYTES: usize = 1 << 20;
const SLOTS: usize = 4;

/// From an empty slot to an empty slot: loan, publish, receive, look at one word, drop.
fn round_trip(criterion: &mut Criterion) {
    let directory = scratch().expect("a directory");
    let mut group = criterion.benchmark_group("loan+publish+receive+drop");

    let bus = Bus::builder().session("calls").directory(directory.path()).open().expect("a bus");
    let subscriber = bus.topic("tensors").subscriber().expect("a subscriber");
    let publisher = bus.topic("tensors").slots(SLOTS).slot_bytes(BYTES).publisher().expect("a publisher");
    let shape = [BYTES / size_of::<u64>()];
    group.bench_function("tensorbus", |bencher| {
        bencher.iter(|| {
            let mut tensor = publisher.loan(Dtype::U64, &shape).expect("a slot");
            tensor.view_mut::<u64>().expect("words")[0] = 7;
            tensor.publish().expect("delivered");
            let message = subscriber.try_recv().expect("a sound port").expect("a message");
            message.first().view::<u64>().expect("words")[0]
        });
    });

    let (publisher, subscriber) = raw(directory.path(), &subscriber);
    group.bench_function("raw iceoryx2", |bencher| {
        bencher.iter(|| {
            publisher.send(|| 7).expect("delivered");
            subscriber.take(|word| word).expect("a sound port").expect("a message")
        });
    });
    group.bench_function("raw iceoryx2 with wake-up", |bencher| {
        bencher.iter(|| {
            publisher.send(|| 7).expect("delivered");
            publisher.notify().expect("notified");
            subscriber.take(|word| word).expect("a sound port").expect("a message")
        });
    });
    group.finish();
}

fn raw(
    directory: &Path,
    settings_of: &tensorbus::Subscriber,
) -> (tensorbus_benches::raw::RawPublisher, tensorbus_benches::raw::RawSubscriber) {
    let node = RawNode::join(directory).expect("a node");
    let topic = node.topic("tensors", settings_of.settings()).expect("a topic");
    (topic.publisher(SLOTS, BYTES).expect("a publisher"), topic.subscriber().expect("a subscriber"))
}

fn format(criterion: &mut Criterion) {
    let layout = layout().expect("a layout");
    let (preamble, payload) = message(&layout).expect("a message");
    let mut group = criterion.benchmark_group("message format");
    group.bench_function("encode a layout", |bencher| bencher.iter(|| encode_layout(black_box(&layout))));
    group.bench_function("check a preamble", |bencher| bencher.iter(|| black_box(&preamble).check(payload.len())));
    group.bench_function("decode, layout validated", |bencher| {
        bencher.iter(|| Decoder::default().decode(black_box(&preamble), black_box(&payload)));
    });
    let mut decoder = Decoder::default();
    group.bench_function("decode, layout known", |bencher| {
        bencher.iter(|| decoder.decode(black_box(&preamble), black_box(&payload)));
    });
    group.finish();
}

criterion_group!(benches, round_trip, format);
criterion_main!(benches);
