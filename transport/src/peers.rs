//! What a subscriber knows of each publisher it hears. Pure.

use crate::wire::Decoder;

/// Publishers remembered beyond those that the topic allows at a time: some come and go.
const DEPARTED: usize = 8;

/// The publishers that were heard most recently, the latest first.
#[derive(Debug)]
pub(crate) struct Peers {
    known: Vec<Peer>,
    limit: usize,
}

#[derive(Debug)]
pub(crate) struct Peer {
    id: u128,
    pub(crate) slot_bytes: usize,
    pub(crate) decoder: Decoder,
    next_sequence: Option<u64>,
}

impl Peers {
    pub(crate) fn new(max_publishers: usize) -> Self {
        Self { known: Vec::new(), limit: max_publishers + DEPARTED }
    }

    /// The publisher with this id; a new one has slots of `slot_bytes`. The one not heard for longest is forgotten.
    pub(crate) fn get(&mut self, id: u128, slot_bytes: impl FnOnce() -> usize) -> &mut Peer {
        match self.known.iter().position(|peer| peer.id == id) {
            Some(0) => {}
            Some(index) => self.known[..=index].rotate_right(1),
            None => {
                self.known.truncate(self.limit - 1);
                let peer = Peer { id, slot_bytes: slot_bytes(), decoder: Decoder::default(), next_sequence: None };
                self.known.insert(0, peer);
            }
        }
        &mut self.known[0]
    }
}

impl Peer {
    /// Notes a message's number. Returns how many were missed since the one before; none before the first.
    ///
    /// A number below the expected one is no gap: a peer that counts backwards lies or starts anew.
    pub(crate) fn arrived(&mut self, sequence: u64) -> u64 {
        let expected = self.next_sequence.replace(sequence.wrapping_add(1));
        expected.map_or(0, |expected| sequence.saturating_sub(expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_for_each_publisher() {
        let mut peers = Peers::new(2);
        let mut arrived = |id, sequence| peers.get(id, || 64).arrived(sequence);
        assert_eq!(arrived(1, 5), 0, "what was published before we came is not lost");
        assert_eq!(arrived(1, 6), 0);
        assert_eq!(arrived(2, 0), 0);
        assert_eq!(arrived(1, 9), 2);
        assert_eq!(arrived(2, 2), 1);
        assert_eq!(arrived(1, 9), 0, "a number that comes again is no gap");
        assert_eq!(arrived(1, u64::MAX), u64::MAX - 10);
        assert_eq!(arrived(1, 0), 0);
    }

    #[test]
    fn the_publisher_unheard_for_longest_is_forgotten() {
        let mut peers = Peers::new(2);
        for id in 0..10 {
            peers.get(id, || 64).arrived(0);
        }
        peers.get(0, || unreachable!("still known"));
        peers.get(10, || 64);
        let mut asked = false;
        peers.get(1, || {
            asked = true;
            64
        });
        assert!(asked, "1 was heard before all others");
        peers.get(0, || unreachable!("still known"));
    }
}
