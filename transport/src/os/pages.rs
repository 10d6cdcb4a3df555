/// Bytes of a memory page.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Writes one byte of each page, which puts memory behind it.
pub(super) fn touch_pages(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().step_by(page_size()) {
        let byte = std::ptr::from_mut(byte);
        // SAFETY: the pointer comes from a live reference; volatile keeps the compiler from dropping the write.
        unsafe { byte.write_volatile(0) };
    }
}
