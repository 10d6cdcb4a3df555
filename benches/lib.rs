//! What the benchmarks share. None of them asserts a time: figures of one run are compared with each other only.
//!
//! | command | what it shows |
//! |---|---|
//! | `cargo bench -p tensorbus-benches --bench handover` | latency between two processes, beside raw iceoryx2 and the machine's floor |
//! | `cargo bench -p tensorbus-benches --bench throughput` | all bytes written and read, beside a plain shared mapping |
//! | `cargo bench -p tensorbus-benches --bench ring` | a request and its answer, beside iceoryx2's request-response and the machine's floor |
//! | `cargo bench -p tensorbus-benches --bench calls` | nanoseconds of single calls in one process |
//! | `cargo bench -p tensorbus-benches --bench instructions` | instruction counts, with limits that fail |
//! | `benches/python/run` | Python beside Rust, the iceoryx2 wheel, and shared memory with a pipe |

pub mod floor;
pub mod messages;
pub mod peer;
pub mod raw;
pub mod raw_calls;
pub mod rounds;
