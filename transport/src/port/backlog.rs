//! Messages that wait for room in the queues of subscribers. Pure.

use std::collections::VecDeque;

/// Why a queue did not get a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotSent {
    /// The queue is full.
    Full,
    /// The subscriber is gone, or its connection is damaged: nobody is there to miss it.
    Gone,
}

/// Who got a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// Subscribers that have it in their queue.
    pub(super) delivered: usize,
    /// Subscribers that have not, because their queue was full.
    pub(super) missed: usize,
}

/// The oldest first, which is the order of their numbers: each queue gets its messages in that order, whoever publishes them.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    messages: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    sequence: u64,
    slot: usize,
    delivered: usize,
    /// Keys of the connections whose queue it waits for.
    full: Vec<u64>,
}

impl Backlog {
    /// Whether a message waits for the queue of this connection: later ones have to wait behind it.
    #[inline]
    pub(super) fn waits_for(&self, connection: u64) -> bool {
        self.messages.iter().any(|message| message.full.contains(&connection))
    }

    /// A message with a higher number than all before, which so many have got, and some have not.
    pub(super) fn add(&mut self, sequence: u64, slot: usize, delivered: usize, full: Vec<u64>) {
        self.messages.push_back(Waiting { sequence, slot, delivered, full });
    }

    /// Tries to send each message to those that it waits for, and no message before an older one.
    pub(super) fn retry(&mut self, mut send: impl FnMut(u64, usize) -> Result<(), NotSent>) {
        let mut still_full = Vec::new();
        for Waiting { slot, delivered, full, .. } in &mut self.messages {
            full.retain(|connection| {
                let sent = if still_full.contains(connection) { Err(NotSent::Full) } else { send(*connection, *slot) };
                match sent {
                    Ok(()) => *delivered += 1,
                    Err(NotSent::Full) => still_full.push(*connection),
                    Err(NotSent::Gone) => {}
                }
                sent == Err(NotSent::Full)
            });
        }
    }

    /// Takes the message with this number out if it waits for nobody any more, or no longer. Returns its slot, and who got it.
    pub(super) fn finish(&mut self, sequence: u64, give_up: bool) -> Option<(usize, Tally)> {
        let ends = |message: &Waiting| message.sequence == sequence && (give_up || message.full.is_empty());
        let index = self.messages.iter().position(ends)?;
        let Waiting { slot, delivered, full, .. } = self.messages.remove(index)?;
        Some((slot, Tally { delivered, missed: full.len() }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUEUES: usize = 3;
    const DEPTH: usize = 2;

    #[derive(Clone, Debug)]
    enum Step {
        /// To the subscribers that are there.
        Publish,
        Retry,
        Read(usize),
        Leave(usize),
        /// The publisher of one of those that wait does so no longer.
        GiveUp(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Publish),
            4 => Just(Step::Retry),
            4 => (0..QUEUES).prop_map(Step::Read),
            1 => (0..QUEUES).prop_map(Step::Leave),
            2 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        ]
    }

    /// One subscriber as a plain list: what it has been sent and not read, and what waits for it.
    #[derive(Clone, Default, Debug)]
    struct Model {
        gone: bool,
        queue: Vec<u64>,
        waiting: Vec<u64>,
    }

    proptest! {
        #[test]
        fn each_queue_is_a_list_of_its_own(steps in prop::collection::vec(step(), 0..100)) {
            let mut backlog = Backlog::default();
            let mut queues = vec![Vec::new(); QUEUES];
            let mut model = vec![Model::default(); QUEUES];
            let mut delivered = Vec::<usize>::new();
            let mut open = Vec::<u64>::new();
            for step in steps {
                match step {
                    Step::Publish => {
                        let sequence = delivered.len() as u64;
                        let (mut got, mut full) = (0, Vec::new());
                        for key in 0..QUEUES {
                            if model[key].gone {
                                continue;
                            }
                            let has_room = queues[key].len() < DEPTH && !backlog.waits_for(key as u64);
                            prop_assert_eq!(has_room, model[key].queue.len() < DEPTH && model[key].waiting.is_empty());
                            if has_room {
                                got += 1;
                                queues[key].push(sequence);
                                model[key].queue.push(sequence);
                            } else {
                                full.push(key as u64);
                                model[key].waiting.push(sequence);
                            }
                        }
                        delivered.push(got);
                        if !full.is_empty() {
                            backlog.add(sequence, sequence as usize, got, full);
                            open.push(sequence);
                        }
                    }
                    Step::Retry => {
                        backlog.retry(|key, slot| {
                            let key = key as usize;
                            if model[key].gone {
                                return Err(NotSent::Gone);
                            }
                            if queues[key].len() == DEPTH {
                                return Err(NotSent::Full);
                            }
                            queues[key].push(slot as u64);
                            Ok(())
                        });
                        for Model { gone, queue, waiting } in &mut model {
                            while !*gone && queue.len() < DEPTH && !waiting.is_empty() {
                                delivered[waiting[0] as usize] += 1;
                                queue.push(waiting.remove(0));
                            }
                            waiting.retain(|_| !*gone);
                        }
                        for sequence in open.clone() {
                            let waits = model.iter().any(|one| one.waiting.contains(&sequence));
                            let tally = Tally { delivered: delivered[sequence as usize], missed: 0 };
                            let finished = backlog.finish(sequence, false);
                            prop_assert_eq!(finished, (!waits).then_some((sequence as usize, tally)));
                            open.retain(|&other| waits || other != sequence);
                        }
                    }
                    Step::Read(key) => {
                        prop_assert_eq!(&queues[key], &model[key].queue);
                        let read = queues[key].len().min(1);
                        queues[key].drain(..read);
                        model[key].queue = queues[key].clone();
                    }
                    Step::Leave(key) => {
                        // What waits for it is let go at the next try.
                        model[key].gone = true;
                        queues[key].clear();
                        model[key].queue.clear();
                    }
                    Step::GiveUp(_) if open.is_empty() => {}
                    Step::GiveUp(which) => {
                        let sequence = open.swap_remove(which.index(open.len()));
                        let waited = |one: &mut Model| {
                            let before = one.waiting.len();
                            one.waiting.retain(|&other| other != sequence);
                            before - one.waiting.len()
                        };
                        let missed = model.iter_mut().map(waited).sum();
                        let tally = Tally { delivered: delivered[sequence as usize], missed };
                        prop_assert_eq!(backlog.finish(sequence, true), Some((sequence as usize, tally)));
                    }
                }
            }
        }
    }
}
