/// Who has a row of a request ring, and what it is in the middle of. `RING.md` has the bits, and who may change what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nobody.
    Free,
    /// Its client writes the inputs.
    Writing { client: u16 },
    /// Submitted; waits for a worker.
    Ready { client: u16 },
    /// A worker reads the inputs and writes the outputs.
    Running { client: u16, worker: u16 },
    /// The same, and nobody waits for it any more.
    Abandoned { worker: u16 },
    /// Answered; its client reads the outputs.
    Done { client: u16 },
    /// Answered with an error; its client reads the text.
    Failed { client: u16, reason: u8 },
}

impl State {
    pub(crate) const fn word(self) -> u64 {
        let (state, client, worker, reason) = match self {
            Self::Free => (0, 0, 0, 0),
            Self::Writing { client } => (1, client, 0, 0),
            Self::Ready { client } => (2, client, 0, 0),
            Self::Running { client, worker } => (3, client, worker, 0),
            Self::Abandoned { worker } => (4, 0, worker, 0),
            Self::Done { client } => (5, client, 0, 0),
            Self::Failed { client, reason } => (6, client, 0, reason),
        };
        state | (client as u64) << 8 | (worker as u64) << 24 | (reason as u64) << 40
    }

    /// `None` for a word that no party writes.
    pub(crate) const fn of(word: u64) -> Option<Self> {
        let (client, worker, reason) = ((word >> 8) as u16, (word >> 24) as u16, (word >> 40) as u8);
        let state = match word & 0xff {
            0 => Self::Free,
            1 => Self::Writing { client },
            2 => Self::Ready { client },
            3 => Self::Running { client, worker },
            4 => Self::Abandoned { worker },
            5 => Self::Done { client },
            6 => Self::Failed { client, reason },
            _ => return None,
        };
        if state.word() == word { Some(state) } else { None }
    }

    /// The client that has the row.
    pub(crate) const fn client(self) -> Option<u16> {
        match self {
            Self::Free | Self::Abandoned { .. } => None,
            Self::Writing { client }
            | Self::Ready { client }
            | Self::Running { client, .. }
            | Self::Done { client }
            | Self::Failed { client, .. } => Some(client),
        }
    }

    /// The worker that has the row.
    pub(crate) const fn worker(self) -> Option<u16> {
        match self {
            Self::Running { worker, .. } | Self::Abandoned { worker } => Some(worker),
            _ => None,
        }
    }
}

#[cfg(all(test, not(tensorbus_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_one_word() {
        let (client, worker, reason) = (u16::MAX - 1, 0x1234, 7);
        let states = [
            (State::Free, 0),
            (State::Writing { client }, 0xff_fe01),
            (State::Ready { client }, 0xff_fe02),
            (State::Running { client, worker }, 0x12_34ff_fe03),
            (State::Abandoned { worker }, 0x12_3400_0004),
            (State::Done { client }, 0xff_fe05),
            (State::Failed { client, reason }, 0x0700_00ff_fe06),
        ];
        for (state, word) in states {
            assert_eq!((state.word(), State::of(word)), (word, Some(state)));
        }
    }

    #[test]
    fn words_that_nobody_writes_are_no_state() {
        for word in [7, 0xff, 1 << 8, 1 << 24 | 1, 1 << 40 | 5, 1 << 48, u64::MAX] {
            assert_eq!(State::of(word), None, "{word:#x}");
        }
    }
}
