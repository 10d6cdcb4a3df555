use std::panic::{AssertUnwindSafe, catch_unwind};

use super::made::forget_made;

/// iceoryx2 gave up with a panic; what it worked on must not be used again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Panicked(pub(crate) String);

/// Runs a call into iceoryx2 that panics instead of failing when files of a session are damaged. Connections that it had just
/// made go to nobody then.
pub(crate) fn shield<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        forget_made();
        let text = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "no reason given".to_owned());
        Panicked(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_text() {
        assert_eq!(shield(|| 1), Ok(1));
        assert_eq!(shield(|| panic!("a segment is gone")), Err::<(), _>(Panicked("a segment is gone".to_owned())));
        assert_eq!(shield(|| panic!("{} are gone", 2)), Err::<(), _>(Panicked("2 are gone".to_owned())));
    }
}
