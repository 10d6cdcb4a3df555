//! What the camera's hop costs without shared memory: the same frames through a Unix-domain socket.
//!
//! The writer draws the same scene at the same rate, into memory of its own. A hop begins when the writer has drawn a
//! frame, as on the bus: it serialises the message (MessagePack) and writes it to the socket. The hop ends when the reader
//! has read and decoded it, into memory that is the frame's own, as on the bus: it can be kept while the next one comes.
//! The reader then cuts the digits out, as preprocess does.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use super::camera::Pace;
use super::digits::{Digits, SIDE};
use super::lifeline::Lifeline;
use super::node::NodeOptions;
use super::scene;
use super::tally::{NodeReport, latencies, recorded};

/// What goes through the socket, behind its length as a little-endian u64.
#[derive(Debug, Serialize, Deserialize)]
struct Frame<Pixels> {
    shape: [usize; 3],
    pixels: Pixels,
    labels: Vec<u8>,
    publish_time_ns: u64,
}

/// No message is longer.
const MAX_MESSAGE_BYTES: u64 = 2 * scene::FRAME_BYTES as u64;

pub(super) fn write(options: &NodeOptions, lifeline: &Lifeline) -> anyhow::Result<()> {
    let digits = Digits::load()?;
    let mut frame = vec![0; scene::FRAME_BYTES];
    scene::paint_background(&mut frame);
    let mut socket = UnixStream::connect_addr(&address(&options.demo)?).context("cannot connect to the reader")?;
    let mut pace = Pace::new(options.fps);

    if !lifeline.ready() {
        return Ok(());
    }
    for number in 0..options.frames {
        if !lifeline.wait_until(pace.next(Instant::now())) {
            return Ok(());
        }
        scene::draw_digits(&mut frame, &digits, number.into());
        let labels = (0..scene::DIGITS).map(|place| digits.label(scene::index_of(number.into(), place))).collect();
        let shape = [scene::HEIGHT, scene::WIDTH, scene::CHANNELS];
        let pixels = Bytes::new(&frame);
        let message = rmp_serde::to_vec(&Frame { shape, pixels, labels, publish_time_ns: monotonic_ns() })?;
        socket.write_all(&(message.len() as u64).to_le_bytes())?;
        socket.write_all(&message)?;
        lifeline.progress(number + 1);
    }
    lifeline.report(NodeReport { process: std::process::id(), ..NodeReport::default() });
    Ok(())
}

pub(super) fn read(options: &NodeOptions, lifeline: &Lifeline) -> anyhow::Result<()> {
    let listener = UnixListener::bind_addr(&address(&options.demo)?).context("cannot listen for the writer")?;
    let mut hop = latencies();
    let mut batch = vec![0.0; scene::DIGITS * SIDE * SIDE];

    if !lifeline.ready() {
        return Ok(());
    }
    let (mut socket, _) = listener.accept()?;
    for number in 0..options.frames {
        let mut length = [0; 8];
        socket.read_exact(&mut length).context("the writer is gone")?;
        let length = u64::from_le_bytes(length);
        ensure!(length <= MAX_MESSAGE_BYTES, "a message of {length} bytes");
        let mut message = Vec::with_capacity(length as usize);
        (&socket).take(length).read_to_end(&mut message)?;
        let frame: Frame<ByteBuf> = rmp_serde::from_slice(&message).context("the writer is gone")?;
        hop.saturating_record(monotonic_ns().saturating_sub(frame.publish_time_ns));
        ensure!(frame.shape.iter().product::<usize>() == frame.pixels.len(), "a frame of shape {:?}", frame.shape);
        scene::cut_out_digits(&frame.pixels, &mut batch);
        std::hint::black_box(&batch);
        lifeline.progress(number + 1);
    }
    lifeline.report(NodeReport { process: std::process::id(), hop: recorded(&hop), ..NodeReport::default() });
    Ok(())
}

/// An abstract address: it lies in no file system, so that nothing of it can stay behind.
fn address(demo: &str) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("tensorbus/{demo}/baseline"))
}

/// The clock that the bus uses for its publish times.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
