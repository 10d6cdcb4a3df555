//! Lock-free structures of our own: pure algorithms over `sync`, which know no operating system. `models/` checks them.

mod bell;

pub(crate) use bell::Bell;
