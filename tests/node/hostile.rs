//! A peer of the same user that breaks every rule: it publishes a good message, then rewrites it in the pool's file
//! before the subscriber reads it.

use std::os::unix::fs::FileExt;

use anyhow::Context;
use tensorbus::prelude::*;
use tensorbus::wire::{MAGIC, Preamble, fingerprint_of};

use super::{say, told};

/// iceoryx2's number of elements stands so many bytes before the preamble, which follows its header of 48 bytes.
const ELEMENTS_BEFORE_PREAMBLE: u64 = 16;
/// Blocks of 64 bytes in a slot of 4096 bytes and the room for the layout.
const ELEMENTS: u64 = (4096 + 4096) / 64;

type Lie = fn(&mut Message);

/// What the parent may ask for, by name.
const LIES: &[(&str, Lie)] = &[
    ("magic", |m| m.preamble.magic ^= 0xff),
    ("version", |m| m.preamble.version = 2),
    ("flags", |m| m.preamble.flags = 0x8000),
    ("no-layout", |m| m.preamble.layout_len = 0),
    ("layout-length", |m| m.preamble.layout_len = u32::MAX),
    ("layout-cut", |m| {
        m.preamble.layout_len -= 8;
        m.resign();
    }),
    ("layout-noise", |m| {
        m.layout.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= (i * 37) as u8);
        m.resign();
    }),
    ("layout-changed", |m| m.layout[0] ^= 1),
    ("data-offset", |m| m.preamble.data_offset = u32::MAX - 63),
    ("data-offset-odd", |m| m.preamble.data_offset += 8),
    ("data-length", |m| m.preamble.data_len = u64::MAX),
    ("data-length-slot", |m| m.preamble.data_len = 1 << 30),
    ("data-short", |m| m.preamble.data_len = 1),
    ("metadata-length", |m| m.preamble.metadata_len = u32::MAX),
    ("metadata-cut", |m| m.preamble.metadata_len = 3),
    ("elements", |m| m.elements = 1 << 40),
    ("elements-max", |m| m.elements = u64::MAX),
    ("elements-double", |m| m.elements *= 2),
    ("shape", |m| {
        // Two dimensions whose product overflows: the tensor has shape [3, 5], each as 8 bytes.
        m.replace(3, 1 << 63);
        m.replace(5, 1 << 63);
        m.resign();
    }),
    ("shape-larger", |m| {
        m.replace(3, 300);
        m.resign();
    }),
    ("offset", |m| {
        // The second tensor begins at 64.
        m.replace(64, 0);
        m.resign();
    }),
    ("offset-far", |m| {
        m.replace(64, 1 << 40);
        m.resign();
    }),
];

struct Message {
    elements: u64,
    preamble: Preamble,
    layout: Vec<u8>,
}

impl Message {
    /// A true fingerprint for a false layout.
    fn resign(&mut self) {
        let len = (self.preamble.layout_len as usize).min(self.layout.len());
        self.preamble.layout_fingerprint = fingerprint_of(&self.layout[..len]);
    }

    /// Replaces a number in the layout, wherever it stands aligned to 8 or to 4.
    fn replace(&mut self, old: u64, new: u64) {
        let place = (0..self.layout.len() - 7).step_by(4).find(|&i| self.layout[i..i + 8] == old.to_le_bytes());
        let place = place.expect("the layout holds the number");
        self.layout[place..place + 8].copy_from_slice(&new.to_le_bytes());
    }
}

/// For each line on stdin, the name of a lie, publishes a message with that lie in it; `good` is none.
pub(crate) fn run() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let publisher = bus.topic("numbers").slot_bytes(4096).publisher()?;
    let pool = std::fs::read_dir(bus.directory())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "pool"))
        .context("the pool's file")?;
    let file = std::fs::File::options().read(true).write(true).open(pool)?;
    say(LIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" "));
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line)? > 0 {
        let name = line.trim().to_owned();
        line.clear();
        let sequence = publish_good(&publisher)?;
        let lie = match LIES.iter().find(|(known, _)| *known == name) {
            Some((_, lie)) => *lie,
            None if name == "good" => (|_| {}) as Lie,
            None => anyhow::bail!("no such lie"),
        };
        rewrite(&file, sequence, lie)?;
        say("published");
    }
    let _ = told();
    Ok(())
}

fn publish_good(publisher: &Publisher) -> anyhow::Result<u64> {
    let mut message = publisher
        .loan_message(&[TensorSpec::new("first", Dtype::U8, &[3, 5]), TensorSpec::new("second", Dtype::F32, &[7])])?;
    message.tensor_mut("first")?.view_mut::<u8>()?.fill(9);
    message.publish()?;
    Ok(publisher.stats().published - 1)
}

/// Finds the message in the pool by its magic and number, and writes it back changed.
fn rewrite(file: &std::fs::File, sequence: u64, lie: Lie) -> anyhow::Result<()> {
    let mut pool = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut pool, 0)?;
    let number = |at: usize| u64::from_le_bytes(pool[at..at + 8].try_into().expect("8 bytes"));
    let at = (48..pool.len() - 64)
        .step_by(8)
        .find(|&at| pool[at..at + 4] == MAGIC.to_le_bytes() && number(at + 32) == sequence)
        .context("the message is in the pool")?;
    let preamble: Preamble = read_preamble(&pool[at..at + 64]);
    // The payload begins at the next multiple of 64 behind the preamble.
    let layout_at = (at + 64).next_multiple_of(64);
    let mut message = Message {
        // An earlier lie about it is still there: iceoryx2 writes it when it makes the pool.
        elements: ELEMENTS,
        preamble,
        layout: pool[layout_at..layout_at + preamble.layout_len as usize].to_vec(),
    };
    lie(&mut message);
    file.write_all_at(&message.elements.to_le_bytes(), at as u64 - ELEMENTS_BEFORE_PREAMBLE)?;
    file.write_all_at(zerocopy::IntoBytes::as_bytes(&message.preamble), at as u64)?;
    file.write_all_at(&message.layout, layout_at as u64)?;
    Ok(())
}

fn read_preamble(bytes: &[u8]) -> Preamble {
    zerocopy::FromBytes::read_from_bytes(bytes).expect("64 bytes")
}
