use std::sync::Arc;

use super::pool::Place;
use super::sender::Sender;
use super::sending::SendFailure;
use crate::os::{Forked, populate_write};
use crate::pool::PoolError;
use crate::port::Node;
use crate::wire::{EncodedLayout, Preamble};

/// A slot of the pool that nobody else sees yet.
pub(crate) struct Slot {
    /// `None` once it is sent.
    number: Option<usize>,
    place: Place,
    /// How many of its bytes have memory.
    committed: usize,
    sender: Arc<Sender>,
}

impl Slot {
    /// `number` is on loan, and goes back when this is dropped.
    #[inline]
    pub(super) fn new(number: usize, place: Place, committed: usize, sender: Arc<Sender>) -> Self {
        Self { number: Some(number), place, committed, sender }
    }

    pub(super) fn address(&self) -> usize {
        self.place.address()
    }

    /// Sees to it that at least the first `wanted` bytes can be used, or as many as the slot has.
    #[inline]
    pub(crate) fn ensure(&mut self, node: &Node, wanted: usize) -> Result<(), PoolError> {
        let wanted = wanted.min(self.place.bytes.len());
        if wanted <= self.committed { Ok(()) } else { self.grow(node, wanted) }
    }

    #[cold]
    fn grow(&mut self, node: &Node, wanted: usize) -> Result<(), PoolError> {
        let Some(growing) = self.sender.growing() else { return Ok(()) };
        let committed = self.committed;
        let mut bytes = self.place.bytes;
        growing.grow(node, self.address(), wanted, || {
            // SAFETY: the slot is on loan, and only reached through `self`, which is borrowed exclusively.
            let bytes = unsafe { bytes.as_mut() };
            populate_write(&mut bytes[committed..wanted])
        })?;
        self.committed = wanted;
        Ok(())
    }

    /// The slot's bytes that have memory. What an earlier message left there may still be in them.
    #[inline]
    pub(crate) fn bytes(&self) -> Result<&[u8], Forked> {
        self.sender.check_ours()?;
        // SAFETY: the slot is on loan, and its pool mapped as long as the sender, of which `self` has a share; the bytes are
        // initialised, and only reached through `self`, which is borrowed.
        let bytes = unsafe { self.place.bytes.as_ref() };
        Ok(&bytes[..self.committed])
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8], Forked> {
        self.sender.check_ours()?;
        // SAFETY: as for `bytes`, and `self` is borrowed exclusively.
        let bytes = unsafe { self.place.bytes.as_mut() };
        Ok(&mut bytes[..self.committed])
    }

    pub(crate) fn sender(&self) -> &Arc<Sender> {
        &self.sender
    }

    /// Gives the message its number and time, and hands the slot to every subscriber; keeps its layout for later ones. Returns how
    /// many subscribers have the message in their queue now.
    ///
    /// Once: whatever comes of it, the slot is not ours any more.
    #[inline]
    pub(crate) fn send(&mut self, preamble: Preamble, layout: Box<EncodedLayout>) -> Result<usize, SendFailure> {
        let sending = self.sender.lock()?;
        let Some(number) = self.number.take() else { return Err(SendFailure::Forked) };
        sending.send(number, preamble, layout)
    }
}

impl Drop for Slot {
    /// Gives the slot back if it was not sent.
    fn drop(&mut self) {
        let Some(number) = self.number.take() else { return };
        // In a forked child it is the parent's.
        if let Ok(mut sending) = self.sender.lock() {
            sending.give_back(number);
        }
    }
}
