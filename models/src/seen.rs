use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How often each outcome was seen, over all interleavings.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Seen {
    pub(crate) fn note(&self, outcome: &'static str) {
        *self.0.lock().unwrap().entry(outcome).or_default() += 1;
    }

    #[track_caller]
    pub(crate) fn all(&self, outcomes: &[&'static str]) {
        let seen = self.0.lock().unwrap();
        println!("{seen:?}");
        for outcome in outcomes {
            assert!(seen.contains_key(outcome), "never {outcome:?}");
        }
    }
}
