//! What a topic must do, in the plainest words: queues as lists, slots as sets of numbers. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tensorbus::Overflow;

/// What the first port fixes for the topic, and each publisher's slots.
#[derive(Clone, Debug)]
pub struct Settings {
    pub overflow: Overflow,
    pub depth: usize,
    pub history: usize,
    pub max_borrowed: usize,
    pub slots: usize,
}

/// The topic: publishers and subscribers by numbers that are never used again.
#[derive(Debug)]
pub struct Model {
    settings: Settings,
    publishers: BTreeMap<u64, Publisher>,
    subscribers: BTreeMap<u64, Subscriber>,
}

#[derive(Debug, Default)]
pub struct Publisher {
    next: u64,
    history: VecDeque<u64>,
    /// What lay in the queues of subscribers that left; taken back at the next message.
    abandoned: BTreeSet<u64>,
    pub published: u64,
    pub unheard: u64,
    pub refused: u64,
    pub failed: u64,
    pub loans_refused: u64,
}

#[derive(Debug, Default)]
pub struct Subscriber {
    /// By publisher.
    pairs: BTreeMap<u64, Pair>,
    pub received: u64,
    pub lost: u64,
}

/// What is between one publisher and one subscriber.
#[derive(Debug, Default)]
struct Pair {
    /// The publisher knows the subscriber: at once, or with its next message if the subscriber came later.
    connected: bool,
    /// The subscriber knows the publisher: at once, or when it looks for messages if the publisher came later.
    opened: bool,
    heard: bool,
    queue: VecDeque<Queued>,
    held: BTreeSet<u64>,
    /// Messages refused since the last one that went into the queue.
    refused: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Queued {
    sequence: u64,
    /// Messages missed right before this one.
    missed: u64,
}

/// Answer to a loan or a publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// In so many queues.
    To(usize),
    Undelivered,
    NoFreeSlot,
}

/// Answer to a look for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Looked {
    Nothing,
    TooManyHeld,
    /// One of these, each the oldest of its publisher.
    Messages(Vec<Arrival>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub publisher: u64,
    pub sequence: u64,
    pub lost: u64,
}

impl Model {
    pub fn new(settings: Settings) -> Self {
        Self { settings, publishers: BTreeMap::new(), subscribers: BTreeMap::new() }
    }

    pub fn publisher(&self, id: u64) -> &Publisher {
        &self.publishers[&id]
    }

    pub fn subscriber(&self, id: u64) -> &Subscriber {
        &self.subscribers[&id]
    }

    pub fn publishers(&self) -> usize {
        self.publishers.len()
    }

    pub fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    pub fn add_publisher(&mut self, id: u64) {
        self.publishers.insert(id, Publisher::default());
        for subscriber in self.subscribers.values_mut() {
            subscriber.pairs.insert(id, Pair { connected: true, ..Pair::default() });
        }
    }

    /// What it sent stays with those who had opened their side. If it sent anything, it waits until all have: it looks after
    /// the ports of its bus meanwhile, which are all there are.
    pub fn remove_publisher(&mut self, id: u64) {
        let publisher = &self.publishers[&id];
        if publisher.published > publisher.unheard || publisher.failed > 0 {
            self.connect(id);
            let pairs = || self.subscribers.values().filter_map(|subscriber| subscriber.pairs.get(&id));
            if pairs().any(|pair| !pair.opened) {
                self.look_after_all();
            }
        }
        self.publishers.remove(&id);
        for subscriber in self.subscribers.values_mut() {
            subscriber.pairs.retain(|&publisher, pair| publisher != id || pair.opened);
        }
    }

    /// The publisher gets to know who came and who left.
    fn connect(&mut self, id: u64) {
        let Some(publisher) = self.publishers.get_mut(&id) else { return };
        publisher.abandoned.clear();
        for pair in self.subscribers.values_mut().filter_map(|subscriber| subscriber.pairs.get_mut(&id)) {
            if !pair.connected {
                pair.connected = true;
                pair.queue.extend(publisher.history.iter().map(|&sequence| Queued { sequence, missed: 0 }));
            }
        }
    }

    /// Every publisher and subscriber gets to know who came and who left.
    fn look_after_all(&mut self) {
        for id in self.publishers.keys().copied().collect::<Vec<_>>() {
            self.connect(id);
        }
        for subscriber in self.subscribers.values_mut() {
            for (publisher, pair) in &mut subscriber.pairs {
                pair.opened |= self.publishers.contains_key(publisher);
            }
        }
    }

    pub fn add_subscriber(&mut self, id: u64) {
        let pair = |&publisher: &u64| (publisher, Pair { opened: true, ..Pair::default() });
        let pairs = self.publishers.keys().map(pair).collect();
        self.subscribers.insert(id, Subscriber { pairs, ..Subscriber::default() });
    }

    /// Once its last message is dropped too.
    pub fn remove_subscriber(&mut self, id: u64) {
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        for (publisher, pair) in subscriber.pairs {
            if let Some(publisher) = self.publishers.get_mut(&publisher) {
                publisher.abandoned.extend(pair.queue.iter().map(|queued| queued.sequence));
            }
        }
    }

    /// Whether a loan finds a slot. If none is free, the publisher gets to know who left, and who came.
    pub fn loan(&mut self, id: u64) -> bool {
        if self.has_free_slot(id) {
            return true;
        }
        self.connect(id);
        let free = self.has_free_slot(id);
        if let (false, Some(publisher)) = (free, self.publishers.get_mut(&id)) {
            publisher.loans_refused += 1;
        }
        free
    }

    /// One is in use while history, a queue or a holder has its message.
    fn has_free_slot(&self, id: u64) -> bool {
        let pairs = self.subscribers.values().filter_map(|subscriber| subscriber.pairs.get(&id));
        let at_subscribers =
            pairs.flat_map(|pair| pair.queue.iter().map(|queued| queued.sequence).chain(pair.held.iter().copied()));
        let publisher = &self.publishers[&id];
        let used: BTreeSet<u64> = at_subscribers
            .chain(publisher.history.iter().copied())
            .chain(publisher.abandoned.iter().copied())
            .collect();
        used.len() < self.settings.slots
    }

    pub fn publish(&mut self, id: u64) -> Published {
        if !self.loan(id) {
            return Published::NoFreeSlot;
        }
        self.connect(id);
        let Self { settings, publishers, subscribers } = self;
        let Some(publisher) = publishers.get_mut(&id) else { return Published::NoFreeSlot };
        let pairs = subscribers.values_mut().filter_map(|subscriber| subscriber.pairs.get_mut(&id));
        let sequence = publisher.next;
        publisher.next += 1;
        let (mut receivers, mut refused) = (0, 0);
        for pair in pairs {
            if pair.push(sequence, settings) {
                receivers += 1;
            } else {
                refused += 1;
            }
        }
        publisher.history.push_back(sequence);
        if publisher.history.len() > settings.history {
            publisher.history.pop_front();
        }
        publisher.refused += refused;
        if refused > 0 && matches!(settings.overflow, Overflow::Error | Overflow::Block(_)) {
            publisher.failed += 1;
            return Published::Undelivered;
        }
        publisher.published += 1;
        publisher.unheard += u64::from(receivers == 0);
        Published::To(receivers)
    }

    pub fn look(&mut self, id: u64) -> Looked {
        let Self { settings, publishers, subscribers } = self;
        let Some(subscriber) = subscribers.get_mut(&id) else { return Looked::Nothing };
        let waiting = subscriber.pairs.iter_mut().filter_map(|(&publisher, pair)| {
            pair.opened |= publishers.contains_key(&publisher);
            let Queued { sequence, missed } = *pair.queue.front()?;
            let lost = if pair.heard { missed } else { 0 };
            Some((Arrival { publisher, sequence, lost }, pair.held.len() < settings.max_borrowed))
        });
        let waiting: Vec<_> = waiting.collect();
        let arrivals: Vec<_> = waiting.iter().filter(|(_, may_hold)| *may_hold).map(|(arrival, _)| *arrival).collect();
        match (waiting.is_empty(), arrivals.is_empty()) {
            (true, _) => Looked::Nothing,
            (false, true) => Looked::TooManyHeld,
            (false, false) => Looked::Messages(arrivals),
        }
    }

    /// The subscriber took this message, which `look` had named, and holds it.
    pub fn take(&mut self, id: u64, arrival: Arrival) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        subscriber.received += 1;
        subscriber.lost += arrival.lost;
        if let Some(pair) = subscriber.pairs.get_mut(&arrival.publisher) {
            pair.heard = true;
            pair.queue.pop_front();
            pair.held.insert(arrival.sequence);
        }
    }

    pub fn release(&mut self, id: u64, arrival: Arrival) {
        let pairs = self.subscribers.get_mut(&id).map(|subscriber| &mut subscriber.pairs);
        if let Some(pair) = pairs.and_then(|pairs| pairs.get_mut(&arrival.publisher)) {
            pair.held.remove(&arrival.sequence);
        }
    }
}

impl Pair {
    /// Whether the message is in the queue now.
    fn push(&mut self, sequence: u64, settings: &Settings) -> bool {
        let mut missed = std::mem::take(&mut self.refused);
        if self.queue.len() == settings.depth {
            if settings.overflow != Overflow::DropOldest {
                self.refused = missed + 1;
                return false;
            }
            let oldest = self.queue.pop_front().map_or(0, |oldest| oldest.missed + 1);
            match self.queue.front_mut() {
                Some(next) => next.missed += oldest,
                None => missed += oldest,
            }
        }
        self.queue.push_back(Queued { sequence, missed });
        true
    }
}
