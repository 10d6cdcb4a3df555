//! A file mapped by two processes and nothing else: what the machine itself takes. The unsafe code of the floor is here.

use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Counters stand this far apart: no two on one cache line, nor on a pair of lines that is fetched together.
const APART: usize = 128;
/// Counters come first, slots after.
const COUNTERS_BYTES: usize = 4096;
const WORD: usize = size_of::<u64>();

/// Counters that two processes share, followed by slots that one writes and the other reads.
#[derive(Debug)]
pub struct Floor {
    base: NonNull<u8>,
    len: usize,
    slots: usize,
    slot_words: usize,
}

/// What each counter is for.
#[derive(Clone, Copy, Debug)]
pub enum Counter {
    /// The last ping.
    Ping,
    /// The last pong.
    Pong,
    /// Slots written so far.
    Produced,
    /// Slots read so far.
    Consumed,
    /// Set once there is a [`Producer`].
    HasProducer,
    /// Set once there is a [`Consumer`].
    HasConsumer,
}

/// The one side that writes slots.
#[derive(Debug)]
pub struct Producer(Floor);

/// The one side that reads slots.
#[derive(Debug)]
pub struct Consumer(Floor);

impl Floor {
    /// Maps the file, whose pages are made if they are not there.
    ///
    /// # Errors
    /// If the file cannot be made that large, or not be mapped.
    pub fn map(path: &Path, slots: usize, slot_bytes: usize) -> Result<Self> {
        let len = COUNTERS_BYTES + slots * slot_bytes;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        ensure!(slot_bytes.is_multiple_of(APART), "slots are aligned to {APART}");
        file.set_len(len as u64)?;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory in use. The file has `len`
        // bytes and nobody makes it shorter.
        let base = unsafe { mmap(std::ptr::null_mut(), len, access, flags, &file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| anyhow::anyhow!("mapped at address 0"))?;
        Ok(Self { base, len, slots, slot_words: slot_bytes / WORD })
    }

    /// A counter.
    #[inline]
    pub fn counter(&self, which: Counter) -> &AtomicU64 {
        // SAFETY: the counters' page is part of the mapping, which is aligned to a page and lives as long as `self`; it
        // is only ever accessed as atomics, and zero is one.
        let counter = unsafe { self.base.byte_add(which as usize * APART) }.cast::<u64>();
        // SAFETY: aligned to a cache line, and as above.
        unsafe { AtomicU64::from_ptr(counter.as_ptr()) }
    }

    /// Becomes the writing side.
    ///
    /// # Errors
    /// If there is one already.
    pub fn producer(self) -> Result<Producer> {
        ensure!(self.counter(Counter::HasProducer).swap(1, Ordering::Relaxed) == 0, "there is a producer");
        Ok(Producer(self))
    }

    /// Becomes the reading side.
    ///
    /// # Errors
    /// If there is one already.
    pub fn consumer(self) -> Result<Consumer> {
        ensure!(self.counter(Counter::HasConsumer).swap(1, Ordering::Relaxed) == 0, "there is a consumer");
        Ok(Consumer(self))
    }

    fn slot(&self, number: u64) -> NonNull<u64> {
        let index = (number % self.slots as u64) as usize;
        // SAFETY: the mapping holds the counters and `slots` slots of `slot_words` words, and the index is below `slots`.
        unsafe { self.base.byte_add(COUNTERS_BYTES + index * self.slot_words * WORD) }.cast()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of the mapping, and all references into it borrow `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Producer {
    /// Writes the next slot as soon as it is free; `None` if it is not.
    pub fn write(&mut self, write: impl FnOnce(&mut [u64])) -> Option<()> {
        let produced = self.0.counter(Counter::Produced);
        let number = produced.load(Ordering::Relaxed);
        if number - self.0.counter(Counter::Consumed).load(Ordering::Acquire) == self.0.slots as u64 {
            return None;
        }
        // SAFETY: the slot lies in the mapping, aligned to `APART`; every bit pattern is a word. No other reference to it
        // exists: there is one producer, borrowed for writing here, and the consumer does not look at slots from
        // `Produced` on; it has, as it says by `Consumed`, let go of what lay in this slot before.
        write(unsafe { std::slice::from_raw_parts_mut(self.0.slot(number).as_ptr(), self.0.slot_words) });
        produced.store(number + 1, Ordering::Release);
        Some(())
    }
}

impl Consumer {
    /// Reads the next slot; `None` if it is not written yet.
    pub fn read<T>(&mut self, read: impl FnOnce(&[u64]) -> T) -> Option<T> {
        let consumed = self.0.counter(Counter::Consumed);
        let number = consumed.load(Ordering::Relaxed);
        if number == self.0.counter(Counter::Produced).load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: as for the producer, which has written this slot, as it says by `Produced`, and does not touch it
        // again before `Consumed` is past it.
        let read = read(unsafe { std::slice::from_raw_parts(self.0.slot(number).as_ptr(), self.0.slot_words) });
        consumed.store(number + 1, Ordering::Release);
        Some(read)
    }
}
