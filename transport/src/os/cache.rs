//! Hints to the processor's caches. A line that another core wrote takes longer to come than everything else that a message needs:
//! whoever knows early which line that will be can wait for several at the same time.

/// The line will be read soon. Reads nothing, whatever the address.
#[inline]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which cannot fault; every processor of this architecture has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
