//! Does the same to a topic and to its model, and compares every answer.

use std::time::Duration;

use tensorbus::{Bus, Dtype, LoanError, Overflow, PublishError, Publisher, ReceiveError, Subscriber, TopicError};

use crate::model::{Arrival, Looked, Model, Published, Settings};

const MAX_PUBLISHERS: usize = 3;
const MAX_SUBSCRIBERS: usize = 3;
/// A subscriber remembers so many publishers, and more would make it forget where it was with the first.
const PUBLISHERS_EVER: u64 = 10;
/// Largest message, in numbers of 8 bytes.
const MAX_LEN: usize = 40;

/// A run, written in bytes: five for the settings, then two a step. Any bytes are one.
#[derive(Debug)]
pub struct Run {
    settings: Settings,
    steps: Vec<Step>,
}

/// The number picks a port among those there are.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(usize),
    /// Writes a loan and drops it.
    GiveUp(usize),
    /// Receives and drops.
    Receive(usize),
    /// Receives and keeps.
    Hold(usize),
    /// Drops a message that is kept.
    Release(usize),
    AddPublisher,
    DropPublisher(usize),
    AddSubscriber,
    /// It stays registered as long as messages of it are kept.
    DropSubscriber(usize),
}

impl Run {
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let setting = |index: usize, values: usize| bytes.get(index).map_or(0, |&byte| byte as usize % values);
        let depth = 1 + setting(1, 4);
        let overflow = match setting(0, 4) {
            0 => Overflow::DropOldest,
            1 => Overflow::DropNewest,
            2 => Overflow::Error,
            _ => Overflow::Block(Duration::from_nanos(1)),
        };
        let history = setting(2, depth + 1);
        let settings =
            Settings { overflow, depth, history, max_borrowed: 1 + setting(3, 3), slots: 1 + setting(4, 16) };
        let steps = bytes.get(5..).unwrap_or_default().as_chunks::<2>().0.iter().map(|pair| {
            let port = pair[1] as usize;
            match pair[0] % 16 {
                0..=3 => Step::Publish(port),
                4 => Step::GiveUp(port),
                5..=7 => Step::Receive(port),
                8 | 9 => Step::Hold(port),
                10 | 11 => Step::Release(port),
                12 => Step::AddPublisher,
                13 => Step::DropPublisher(port),
                14 => Step::AddSubscriber,
                _ => Step::DropSubscriber(port),
            }
        });
        Self { settings, steps: steps.collect() }
    }

    /// Panics at the first answer that is not the model's.
    pub fn check(&self, bus: &Bus) {
        let mut pair = Pair::new(bus, self.settings.clone());
        // Nothing happens without ports; each can be dropped later.
        pair.step(Step::AddPublisher);
        pair.step(Step::AddSubscriber);
        for &step in &self.steps {
            pair.step(step);
        }
        pair.drain();
        drop(pair);
        assert_eq!(bus.topics().expect("topics").len(), 0, "the topic outlives its ports");
    }
}

/// The topic and its model.
struct Pair<'a> {
    bus: &'a Bus,
    settings: Settings,
    model: Model,
    publishers: Vec<(u64, Publisher)>,
    subscribers: Vec<(u64, Subscriber)>,
    held: Vec<Held>,
    next_id: u64,
    publishers_made: u64,
}

struct Held {
    subscriber: u64,
    arrival: Arrival,
    message: tensorbus::Message,
}

impl<'a> Pair<'a> {
    fn new(bus: &'a Bus, settings: Settings) -> Self {
        let model = Model::new(settings.clone());
        let (publishers, subscribers, held) = (Vec::new(), Vec::new(), Vec::new());
        Self { bus, settings, model, publishers, subscribers, held, next_id: 0, publishers_made: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(port) => self.publish(port),
            Step::GiveUp(port) => self.give_up(port),
            Step::Receive(port) => self.receive(port, false),
            Step::Hold(port) => self.receive(port, true),
            Step::Release(index) => self.release(index),
            Step::AddPublisher => self.add_publisher(),
            Step::DropPublisher(port) => self.drop_publisher(port),
            Step::AddSubscriber => self.add_subscriber(),
            Step::DropSubscriber(port) => self.drop_subscriber(port),
        }
        for held in &self.held {
            check_message(&held.message, held.arrival);
        }
        for (id, publisher) in &self.publishers {
            let (model, stats) = (self.model.publisher(*id), publisher.stats());
            assert_eq!(
                (stats.published, stats.unheard, stats.refused, stats.failed, stats.loans_refused),
                (model.published, model.unheard, model.refused, model.failed, model.loans_refused),
                "published, unheard, refused, failed, loans refused of publisher {id} after {step:?}"
            );
        }
        for (id, subscriber) in &self.subscribers {
            let (model, stats) = (self.model.subscriber(*id), subscriber.stats());
            assert_eq!((stats.received, stats.lost, stats.rejected), (model.received, model.lost, 0), "after {step:?}");
        }
    }

    /// Receives what is left everywhere, so that every run ends with empty queues.
    fn drain(&mut self) {
        self.held.iter().for_each(|held| self.model.release(held.subscriber, held.arrival));
        self.held.clear();
        for port in 0..self.subscribers.len() {
            let (mut before, mut now) = (None, Some(self.subscribers[port].1.stats().received));
            while before != now {
                self.receive(port, false);
                before = now.replace(self.subscribers[port].1.stats().received);
            }
        }
    }

    fn topic(&self) -> tensorbus::TopicBuilder {
        let Settings { overflow, depth, history, max_borrowed, slots } = self.settings;
        let topic = self.bus.topic("model").overflow(overflow).depth(depth).history(history).max_borrowed(max_borrowed);
        let topic = topic.max_publishers(MAX_PUBLISHERS).max_subscribers(MAX_SUBSCRIBERS);
        topic.slots(slots).slot_bytes(MAX_LEN * size_of::<u64>())
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn add_publisher(&mut self) {
        if self.publishers_made == PUBLISHERS_EVER {
            return;
        }
        match self.topic().publisher() {
            Ok(publisher) => {
                assert!(self.model.publishers() < MAX_PUBLISHERS, "one publisher too many");
                let id = self.new_id();
                self.model.add_publisher(id);
                self.publishers.push((id, publisher));
                self.publishers_made += 1;
            }
            Err(TopicError::TooManyPublishers { .. }) => assert_eq!(self.model.publishers(), MAX_PUBLISHERS),
            Err(error) => panic!("publisher: {error}"),
        }
    }

    fn drop_publisher(&mut self, port: usize) {
        if let Some(index) = port.checked_rem(self.publishers.len()) {
            let (id, _) = self.publishers.remove(index);
            self.model.remove_publisher(id);
        }
    }

    fn add_subscriber(&mut self) {
        match self.topic().subscriber() {
            Ok(subscriber) => {
                assert!(self.model.subscribers() < MAX_SUBSCRIBERS, "one subscriber too many");
                let id = self.new_id();
                self.model.add_subscriber(id);
                self.subscribers.push((id, subscriber));
            }
            Err(TopicError::TooManySubscribers { .. }) => assert_eq!(self.model.subscribers(), MAX_SUBSCRIBERS),
            Err(error) => panic!("subscriber: {error}"),
        }
    }

    fn drop_subscriber(&mut self, port: usize) {
        if let Some(index) = port.checked_rem(self.subscribers.len()) {
            let (id, _) = self.subscribers.remove(index);
            self.forget_if_gone(id);
        }
    }

    /// A subscriber has left when it and its last message are dropped.
    fn forget_if_gone(&mut self, id: u64) {
        let is_there = self.subscribers.iter().any(|(known, _)| *known == id);
        if !is_there && !self.held.iter().any(|held| held.subscriber == id) {
            self.model.remove_subscriber(id);
        }
    }

    fn publish(&mut self, port: usize) {
        let Some(index) = port.checked_rem(self.publishers.len()) else { return };
        let (id, publisher) = &self.publishers[index];
        let stats = publisher.stats();
        let content = content(*id, stats.published + stats.failed);
        let expected = self.model.publish(*id);
        let published = match publisher.publish_copy(&content, &[content.len()]) {
            Ok(receivers) => Published::To(receivers),
            Err(PublishError::Undelivered { .. }) => Published::Undelivered,
            Err(PublishError::Loan(LoanError::NoFreeSlot { .. })) => Published::NoFreeSlot,
            Err(error) => panic!("publish: {error}"),
        };
        assert_eq!(published, expected, "of publisher {id}");
    }

    fn give_up(&mut self, port: usize) {
        let Some(index) = port.checked_rem(self.publishers.len()) else { return };
        let (id, publisher) = &self.publishers[index];
        let expected = self.model.loan(*id);
        match publisher.loan(Dtype::U64, &[MAX_LEN]) {
            Ok(mut tensor) => {
                assert!(expected, "publisher {id} has a slot too many");
                tensor.view_mut::<u64>().expect("numbers").fill(u64::MAX);
            }
            Err(LoanError::NoFreeSlot { .. }) => assert!(!expected, "publisher {id} has a slot too few"),
            Err(error) => panic!("loan: {error}"),
        }
    }

    fn receive(&mut self, port: usize, hold: bool) {
        let Some(index) = port.checked_rem(self.subscribers.len()) else { return };
        let (id, subscriber) = &self.subscribers[index];
        let expected = self.model.look(*id);
        match subscriber.try_recv() {
            Ok(None) => assert_eq!(Looked::Nothing, expected, "for subscriber {id}"),
            Err(ReceiveError::TooManyHeld { .. }) => assert_eq!(Looked::TooManyHeld, expected, "for subscriber {id}"),
            Err(error) => panic!("receive: {error}"),
            Ok(Some(message)) => {
                let publisher = message.first().view::<u64>().expect("numbers")[0];
                let arrival = Arrival { publisher, sequence: message.sequence(), lost: message.lost() };
                let Looked::Messages(messages) = &expected else { panic!("{arrival:?}, not {expected:?}") };
                assert!(messages.contains(&arrival), "{arrival:?} is none of {messages:?}");
                check_message(&message, arrival);
                self.model.take(*id, arrival);
                if hold {
                    self.held.push(Held { subscriber: *id, arrival, message });
                } else {
                    self.model.release(*id, arrival);
                }
            }
        }
    }

    fn release(&mut self, index: usize) {
        if let Some(index) = index.checked_rem(self.held.len()) {
            let Held { subscriber, arrival, message } = self.held.remove(index);
            drop(message);
            self.model.release(subscriber, arrival);
            self.forget_if_gone(subscriber);
        }
    }
}

/// What a publisher writes into its message with this number.
fn content(publisher: u64, sequence: u64) -> Vec<u64> {
    let len = 2 + (publisher * 7 + sequence * 13) as usize % (MAX_LEN - 1);
    let rest = (2..len as u64).map(|i| (publisher << 32 | sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i);
    [publisher, sequence].into_iter().chain(rest).collect()
}

fn check_message(message: &tensorbus::Message, arrival: Arrival) {
    let content = content(arrival.publisher, arrival.sequence);
    assert_eq!(message.first().view::<u64>().expect("numbers"), content, "{arrival:?}");
}
