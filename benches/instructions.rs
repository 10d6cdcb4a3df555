//! Instruction counts of the paths that every message takes, and of a request for a model that is in memory, and limits
//! that fail the build. No clock is involved: valgrind counts the same whatever else the machine does.
//!
//! The limits lie about 5 % above what was counted with the Rust version that CI uses. Who makes a path longer on
//! purpose, or changes the compiler, runs `cargo bench -p tensorbus-benches --bench instructions`, reads the new
//! `Instructions`, and sets the limit to 1.05 times that, rounded up to two digits. Who makes one shorter lowers it.
//!
//! Needs valgrind, and `gungraun-runner` of the library's version on the `PATH` or named by `GUNGRAUN_RUNNER` when this
//! is compiled.

#![allow(missing_docs, reason = "the macros of gungraun make public items")]

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use tempfile::TempDir;
use tensorbus::layout::MessageLayout;
use tensorbus::wire::{Decoded, Decoder, Parts, Preamble, encode_layout};
use tensorbus::{Bus, Dtype, KeepAlive, Measured, ModelRegistry, Publisher, Subscriber};
use tensorbus_benches::messages;
use tensorbus_benches::peer::scratch;

/// At most so many instructions.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

struct Message {
    decoder: Decoder,
    preamble: Preamble,
    payload: Vec<u8>,
}

fn layout() -> MessageLayout {
    messages::layout().expect("a layout")
}

fn unknown() -> Message {
    let (preamble, payload) = messages::message(&layout()).expect("a message");
    Message { decoder: Decoder::default(), preamble, payload }
}

fn known() -> Message {
    let mut message = unknown();
    message.decoder.decode(&message.preamble, &message.payload).expect("a valid message");
    message
}

#[library_benchmark(config = at_most(5_100))]
#[bench::two_tensors(layout())]
fn encode(layout: MessageLayout) -> usize {
    let encoded = encode_layout(black_box(&layout)).expect("encodable");
    let len = encoded.len();
    // Dropping is not what is counted.
    std::mem::forget((encoded, layout));
    len
}

#[library_benchmark(config = at_most(92))]
#[bench::two_tensors(unknown())]
fn check_preamble(message: Message) -> (Parts, Message) {
    let parts = black_box(&message.preamble).check(message.payload.len()).expect("valid");
    (parts, message)
}

#[library_benchmark]
#[bench::layout_known(args = (known()), config = at_most(260))]
#[bench::layout_validated(args = (unknown()), config = at_most(3_400))]
fn decode(mut message: Message) -> (Decoded, Message) {
    let decoded = message.decoder.decode(black_box(&message.preamble), black_box(&message.payload)).expect("valid");
    (decoded, message)
}

/// A topic whose two ports have met: the first message was received.
struct Topic {
    publisher: Publisher,
    subscriber: Subscriber,
    _bus: Bus,
    _directory: TempDir,
}

const SHAPE: [usize; 3] = [480, 640, 3];

fn topic() -> Topic {
    let directory = scratch().expect("a directory");
    let bus = Bus::builder().session("i").directory(directory.path()).open().expect("a bus");
    let subscriber = bus.topic("t").subscriber().expect("a subscriber");
    let publisher = bus.topic("t").slot_bytes(SHAPE.iter().product()).publisher().expect("a publisher");
    let topic = Topic { publisher, subscriber, _bus: bus, _directory: directory };
    for _ in 0..8 {
        hand_over(&topic);
    }
    topic
}

fn hand_over(topic: &Topic) {
    let mut tensor = topic.publisher.loan(Dtype::U8, &SHAPE).expect("a slot");
    tensor.view_mut::<u8>().expect("bytes")[0] = 7;
    tensor.publish().expect("delivered");
    let message = topic.subscriber.try_recv().expect("a sound port").expect("a message");
    black_box(message.first().view::<u8>().expect("bytes")[0]);
}

#[library_benchmark(config = at_most(2_700))]
#[bench::frame(args = (topic()), teardown = drop)]
fn loan_publish_receive_drop(topic: Topic) -> Topic {
    hand_over(black_box(&topic));
    topic
}

// What a receiver that spins does over and over: the less it takes, the sooner it sees a message.
#[library_benchmark(config = at_most(230))]
#[bench::frame(args = (topic()), teardown = drop)]
fn receive_nothing(topic: Topic) -> Topic {
    assert!(black_box(&topic.subscriber).try_recv().expect("a sound port").is_none());
    topic
}

type Model = Measured<[u8; 64]>;

/// A registry in which the model is, with others beside it.
fn registry() -> ModelRegistry {
    let registry = ModelRegistry::new();
    for number in 0..32 {
        let load = || std::io::Result::Ok(Measured::new([0; 64], 64));
        let key = format!("model/{number}");
        registry.entry(&key).keep_alive(KeepAlive::Forever).get_or_load_blocking::<Model, _, _>(load).expect("load");
    }
    registry
}

// A handle taken and dropped, of a model that is in memory.
#[library_benchmark(config = at_most(720))]
#[bench::one_of_32(args = (registry()), teardown = drop)]
fn registry_hit(registry: ModelRegistry) -> ModelRegistry {
    let load = || -> std::io::Result<Model> { unreachable!("it is there") };
    drop(black_box(registry.get_or_load_blocking(black_box("model/7"), load).expect("hit")));
    registry
}

library_benchmark_group!(name = format, benchmarks = [encode, check_preamble, decode]);
library_benchmark_group!(name = ports, benchmarks = [loan_publish_receive_drop, receive_nothing]);
library_benchmark_group!(name = models, benchmarks = [registry_hit]);
main!(library_benchmark_groups = [format, ports, models]);
