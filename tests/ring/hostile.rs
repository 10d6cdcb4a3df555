//! Does anything with a ring whose file a hostile process of the same user writes to: each call gives an error or does what it is for, and
//! nobody reads or writes outside of the file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tensorbus::{Answer, Batch, Bus, Dtype, Pending, RequestMut, RingBuilder, RingClient, RingWorker};

const NAME: &str = "ring";
const NUMBERS: usize = 3;
const MOST_PARTIES: usize = 3;

// Where the parts of a ring's file lie: `RING.md`.
const COUNTS_AT: usize = 128;
const READY_AT: usize = 192;
const WANTING_AT: usize = 704;
const WORKERS_AT: usize = 832;
const CLIENTS_AT: usize = 4928;
const HEADS_AT: usize = 70_464;

/// Written in bytes: one for the ring, then eight a step. Any bytes are a run.
#[derive(Debug)]
pub struct Run {
    rows: usize,
    may_repeat: bool,
    isolated: bool,
    steps: Vec<Step>,
}

/// What is done, which of several it is done to, and a value.
type Step = (u8, u8, u16, u32);

struct Ring<'a> {
    bus: &'a Bus,
    rows: usize,
    may_repeat: bool,
    isolated: bool,
    clients: Vec<RingClient>,
    workers: Vec<RingWorker>,
    written: Vec<RequestMut>,
    pending: Vec<Pending>,
    answers: Vec<Answer>,
    batches: Vec<Batch>,
}

impl Run {
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let first = bytes.first().copied().unwrap_or_default();
        let steps = bytes.get(1..).unwrap_or_default().as_chunks::<8>().0.iter().map(|step| {
            let [what, which, position @ .., a, b, c, d] = *step;
            (what, which, u16::from_le_bytes(position), u32::from_le_bytes([a, b, c, d]))
        });
        let kind = first & 0x7f;
        let (rows, may_repeat, isolated) = (1 + usize::from(kind) % 70, first & 0x80 != 0, kind >= 70);
        Self { rows, may_repeat, isolated, steps: steps.collect() }
    }

    /// Panics if a promise is broken, or ends by a signal.
    pub fn check(&self, bus: &Bus) {
        let mut ring = Ring::new(bus, self.rows, self.may_repeat, self.isolated);
        for &step in &self.steps {
            ring.step(step);
        }
    }
}

impl<'a> Ring<'a> {
    fn new(bus: &'a Bus, rows: usize, may_repeat: bool, isolated: bool) -> Self {
        let (clients, workers) = (Vec::new(), Vec::new());
        let (written, pending, answers, batches) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut ring = Self { bus, rows, may_repeat, isolated, clients, workers, written, pending, answers, batches };
        ring.workers.push(ring.builder().worker().expect("worker"));
        ring.clients.push(ring.builder().client().expect("client"));
        ring
    }

    fn builder(&self) -> RingBuilder {
        let ring = self.bus.ring(NAME).input("x", Dtype::U16, &[NUMBERS]).output("y", Dtype::U16, &[NUMBERS]);
        let ring = ring.rows(self.rows).credits(self.rows).spin(Duration::ZERO);
        let ring = if self.isolated { ring.isolated() } else { ring };
        if self.may_repeat { ring.repeatable() } else { ring }
    }

    fn step(&mut self, (what, which, position, value): Step) {
        let row = usize::from(position) % self.rows;
        let place = |at, count| at + 64 * (usize::from(position) % count);
        match what % 32 {
            // The hostile one.
            0 => self.poke(usize::from(which) << 16 | usize::from(position), &value.to_le_bytes()),
            1 => self.poke(usize::from(which) % 64, &value.to_le_bytes()),
            2 => self.poke(HEADS_AT + 64 * row, &(u64::from(value) << 8 | u64::from(which)).to_le_bytes()),
            3 => self.poke(HEADS_AT + 64 * row + 8 + 4 * usize::from(which % 8), &value.to_le_bytes()),
            4 => self.poke(READY_AT + usize::from(position) % 512, &value.to_le_bytes()),
            5 => self.poke(WANTING_AT + usize::from(position) % 128, &value.to_le_bytes()),
            6 => self.poke(COUNTS_AT + 4 * usize::from(which % 4), &value.to_le_bytes()),
            7 => self.poke(place(WORKERS_AT, 64) + 4 * usize::from(which % 6), &value.to_le_bytes()),
            8 => self.poke(place(CLIENTS_AT, 1024) + 4 * usize::from(which % 6), &value.to_le_bytes()),
            9 => self.poke(HEADS_AT + 64 * self.rows + 192 * row, &value.to_le_bytes()),
            10 => self.poke(HEADS_AT + (64 + 192) * self.rows + usize::from(position) % 1024, &value.to_le_bytes()),
            // Everybody else.
            11..=13 => self.loan(which, value),
            14..=16 => self.submit(which),
            17..=19 => self.wait(which),
            20 => drop(take_one(&mut self.pending, which)),
            21 => drop(take_one(&mut self.answers, which)),
            22 => drop(take_one(&mut self.written, which)),
            23..=25 => self.take(which, value),
            26 | 27 => self.finish(which, position),
            28 => self.change_clients(which),
            29 => self.change_workers(which),
            30 => self.look(),
            _ => self.poke_slots(usize::from(which) % MOST_PARTIES, usize::from(position), &value.to_le_bytes()),
        }
    }

    /// Writes into the file that the name means, as far as it goes: a file that is longer or shorter is another crime.
    fn poke(&self, at: usize, bytes: &[u8]) {
        if let Some(path) = self.path() {
            write_within(&path, at, bytes);
        }
    }

    /// The same with the file of a client of an isolated ring.
    fn poke_slots(&self, client: usize, at: usize, bytes: &[u8]) {
        if let Some(path) = self.path() {
            write_within(&path.with_added_extension(format!("d{client}")), at, bytes);
        }
    }

    fn path(&self) -> Option<PathBuf> {
        let rings = std::fs::read_dir(self.bus.directory().join("rings")).ok()?;
        let number = |path: &PathBuf| path.to_str()?.rsplit_once('@')?.1.parse::<u64>().ok();
        rings.flatten().map(|entry| entry.path()).filter(|path| number(path).is_some()).max_by_key(number)
    }

    fn loan(&mut self, which: u8, value: u32) {
        if let Some(client) = one(&mut self.clients, which)
            && let Ok(mut request) = client.loan(Duration::ZERO)
        {
            let numbers = request.view_mut::<u16>("x").expect("the input");
            assert_eq!(numbers.len(), NUMBERS);
            numbers.fill(value as u16);
            self.written.push(request);
        }
    }

    fn submit(&mut self, which: u8) {
        if let Some(request) = take_one(&mut self.written, which) {
            self.pending.push(request.submit().expect("submitted"));
        }
    }

    fn wait(&mut self, which: u8) {
        if let Some(pending) = take_one(&mut self.pending, which) {
            match pending.wait(Duration::ZERO) {
                Ok(answer) => {
                    match answer.view::<u16>("y") {
                        Ok(y) if self.isolated => assert!(y.len() <= NUMBERS),
                        Ok(y) => assert_eq!(y.len(), NUMBERS),
                        // A shape that does not fit.
                        Err(error) => assert!(self.isolated, "{error}"),
                    }
                    self.answers.push(answer);
                }
                Err(error) => assert!(error.to_string().len() < 1000),
            }
        }
    }

    fn take(&mut self, which: u8, value: u32) {
        if let Some(worker) = one(&mut self.workers, which)
            && let Ok(batch) = worker.take(value as usize, Duration::ZERO)
        {
            self.batches.push(batch);
        }
    }

    fn finish(&mut self, which: u8, how: u16) {
        let Some(mut batch) = take_one(&mut self.batches, which) else { return };
        assert!(batch.rows().end <= self.rows, "rows {:?} of {}", batch.rows(), self.rows);
        let len = batch.len();
        let mut tensors = batch.tensors().expect("tensors");
        let (x, y) = (tensors.inputs[0].view::<u16>().expect("the input"), &mut tensors.outputs[0]);
        let y = y.view_mut::<u16>().expect("the output");
        assert_eq!(y.len(), len * NUMBERS);
        assert!(if self.isolated { x.len() <= len * NUMBERS } else { x.len() == len * NUMBERS });
        y.iter_mut().zip(x).for_each(|(y, x)| *y = *x);
        match how % 4 {
            0 => batch.fail(&"no".repeat(usize::from(how) % 200)),
            1 => batch.give_back(),
            2 => drop(batch),
            _ => batch.finish(),
        }
    }

    /// Somebody comes, or goes. What they had may outlive them.
    fn change_clients(&mut self, which: u8) {
        if which < 128 && self.clients.len() < MOST_PARTIES {
            self.clients.extend(self.builder().client());
        } else {
            drop(take_one(&mut self.clients, which));
        }
    }

    fn change_workers(&mut self, which: u8) {
        if which < 128 && self.workers.len() < MOST_PARTIES {
            self.workers.extend(self.builder().worker());
        } else {
            drop(take_one(&mut self.workers, which));
        }
    }

    fn look(&self) {
        for client in &self.clients {
            assert!(client.workers().len() <= 64);
            let counts = client.row_counts();
            let taken = counts.writing + counts.ready + counts.running + counts.abandoned + counts.done + counts.failed;
            assert_eq!(counts.free + taken + counts.damaged, self.rows);
        }
        for worker in &self.workers {
            assert!(worker.clients().len() <= 1024 && worker.waiting() <= 128);
        }
        self.pending.iter().for_each(|pending| drop(pending.has_ended().to_string()));
    }
}

fn write_within(path: &Path, at: usize, bytes: &[u8]) {
    if let Ok(file) = File::options().write(true).open(path)
        && file.metadata().is_ok_and(|file| at as u64 + bytes.len() as u64 <= file.len())
    {
        file.write_all_at(bytes, at as u64).expect("written");
    }
}

fn one<T>(those: &mut [T], which: u8) -> Option<&mut T> {
    let index = usize::from(which).checked_rem(those.len())?;
    those.get_mut(index)
}

fn take_one<T>(those: &mut Vec<T>, which: u8) -> Option<T> {
    let index = usize::from(which).checked_rem(those.len())?;
    Some(those.swap_remove(index))
}
