//! How much of a session's quota its pools use: counted from what exists, so that no crash can leave it wrong. Pure.
//!
//! A pool lives in a file. It takes memory as long as the file has its name (its publisher lives, or is dead and not cleaned
//! up), and after that as long as some process maps it: a subscriber that holds a tensor. To find the second kind, each pool
//! gets another name in a place of our own, and keeps it until nobody maps the pool any more.

use super::PoolError;

/// What to do with a pool's second name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Give it one.
    Keep,
    /// Take it away: with it goes the memory.
    LetGo,
    Nothing,
}

/// Whether a pool counts, and what is to be done: `named` says that its publisher's name for it exists, `kept` that ours
/// does. Whether it is mapped is asked only where that decides.
pub(super) fn settle(named: bool, kept: bool, mapped: impl FnOnce() -> bool) -> (bool, Step) {
    match (named, kept) {
        (true, true) => (true, Step::Nothing),
        (true, false) => (true, Step::Keep),
        (false, true) if mapped() => (true, Step::Nothing),
        (false, true) => (false, Step::LetGo),
        (false, false) => (false, Step::Nothing),
    }
}

/// Whether `needed` bytes more are within the quota.
pub(super) fn fits(needed: u64, used: u64, quota: u64) -> Result<(), PoolError> {
    if used.checked_add(needed).is_some_and(|all| all <= quota) {
        return Ok(());
    }
    Err(PoolError::Quota { needed, used, quota })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_whole_quota_can_be_used_and_no_byte_more() {
        assert!(fits(400, 600, 1000).is_ok());
        let refused = fits(401, 600, 1000).unwrap_err();
        assert!(matches!(refused, PoolError::Quota { needed: 401, used: 600, quota: 1000 }));
        assert!(refused.to_string().contains("1 missing"), "{refused}");
        assert!(fits(u64::MAX, 1, u64::MAX).is_err());
        assert!(fits(0, 2000, 1000).is_err(), "used before the quota was set");
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Create(u8),
        Depart(usize),
        Map(usize),
        /// A tensor is dropped, or its process killed.
        Unmap(usize),
        /// A turn begins whose owner dies before its end.
        DieInTurn(u8),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<u8>().prop_map(Event::Create),
            any::<usize>().prop_map(Event::Depart),
            any::<usize>().prop_map(Event::Map),
            any::<usize>().prop_map(Event::Unmap),
            any::<u8>().prop_map(Event::DieInTurn),
        ]
    }

    #[derive(Default)]
    struct Pool {
        bytes: u64,
        named: bool,
        kept: bool,
        mappers: usize,
    }

    fn settle_all(pools: &mut [Pool]) -> u64 {
        let mut used = 0;
        for pool in pools {
            let (counts, step) = settle(pool.named, pool.kept, || pool.mappers > 0);
            used += if counts { pool.bytes } else { 0 };
            pool.kept = match step {
                Step::Keep => true,
                Step::LetGo => false,
                Step::Nothing => pool.kept,
            };
        }
        used
    }

    proptest! {
        /// The model: a pool takes memory while it has a name or somebody maps it.
        #[test]
        fn what_is_counted_is_what_takes_memory(events in prop::collection::vec(event(), 0..60)) {
            let mut pools: Vec<Pool> = Vec::new();
            let mut died = false;
            for event in events {
                // Whoever takes the turn after a death settles first.
                if std::mem::take(&mut died) {
                    settle_all(&mut pools);
                }
                let count = pools.len().max(1);
                match event {
                    Event::Create(bytes) => pools.push(Pool { bytes: bytes.into(), named: true, ..Pool::default() }),
                    Event::DieInTurn(bytes) => {
                        pools.push(Pool { bytes: bytes.into(), named: true, ..Pool::default() });
                        died = true;
                        continue;
                    }
                    Event::Depart(i) => {
                        if let Some(pool) = pools.get_mut(i % count) { pool.named = false; }
                    }
                    Event::Map(i) => {
                        if let Some(pool) = pools.get_mut(i % count).filter(|pool| pool.named) { pool.mappers += 1; }
                    }
                    Event::Unmap(i) => {
                        if let Some(pool) = pools.get_mut(i % count) { pool.mappers = pool.mappers.saturating_sub(1); }
                    }
                }
                let used = settle_all(&mut pools);
                let takes_memory = |pool: &&Pool| pool.named || pool.mappers > 0;
                prop_assert_eq!(used, pools.iter().filter(takes_memory).map(|pool| pool.bytes).sum::<u64>());
                prop_assert!(pools.iter().all(|pool| pool.kept == (pool.named || pool.mappers > 0)));
            }
        }
    }
}
