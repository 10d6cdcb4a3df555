use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Messages that a rate is taken over, at most.
const MESSAGES: usize = 256;
/// Time that it is taken over, at most, as long as two messages are left.
const WINDOW: Duration = Duration::from_secs(2);

/// Messages and bytes a second, over the last messages.
#[derive(Debug, Default)]
pub(super) struct Rate {
    arrivals: VecDeque<(Instant, u64)>,
}

/// What a [`Rate`] was at some time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct PerSecond {
    pub(super) messages: f64,
    pub(super) bytes: f64,
}

impl Rate {
    /// Takes note of a message. `None` for the first one, which has no rate.
    pub(super) fn arrived(&mut self, now: Instant, bytes: u64) -> Option<PerSecond> {
        self.arrivals.push_back((now, bytes));
        while self.arrivals.len() > MESSAGES || (self.arrivals.len() > 2 && now - self.arrivals[0].0 > WINDOW) {
            self.arrivals.pop_front();
        }
        let seconds = (now - self.arrivals[0].0).as_secs_f64();
        // What came with the first message came before the time that is looked at.
        let bytes: u64 = self.arrivals.iter().skip(1).map(|&(_, bytes)| bytes).sum();
        let messages = (self.arrivals.len() - 1) as f64;
        (seconds > 0.0).then(|| PerSecond { messages: messages / seconds, bytes: bytes as f64 / seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_that_of_the_last_messages() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.arrived(start, 100), None);
        let mut last = None;
        for message in 1..=100 {
            last = rate.arrived(start + Duration::from_millis(100 * message), 1000);
        }
        assert_eq!(last, Some(PerSecond { messages: 10.0, bytes: 10_000.0 }));
        let slower = rate.arrived(start + Duration::from_secs(60), 1000).unwrap();
        assert!(slower.messages < 0.1, "{slower:?}");
        assert!(rate.arrivals.len() == 2);
    }

    #[test]
    fn messages_at_one_time_have_no_rate() {
        let now = Instant::now();
        let mut rate = Rate::default();
        for _ in 0..2 * MESSAGES {
            assert_eq!(rate.arrived(now, 1), None);
        }
        assert_eq!(rate.arrivals.len(), MESSAGES);
    }
}
