//! The children of the tests: each role is one process's part. Lines on stdout tell the parent how far it is; a line
//! on stdin lets it go on, the end of stdin ends it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod control;
mod crash;
mod forking;
mod growing;
mod hostile;
mod limits;
mod models;
mod onnx;
mod ring;
mod sealed;
mod weights;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tensorbus::ReceiveError;
use tensorbus::prelude::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let role = args.first().context("a role")?;
    let number = |index: usize| -> anyhow::Result<usize> {
        args.get(index).context("an argument is missing")?.parse().context("not a number")
    };
    match role.as_str() {
        "publish" => publish(number(1)?, number(2)?),
        "publish-for-ever" => publish_for_ever(),
        "hold-loan" => hold_loan(),
        "subscribe-and-hold" => subscribe_and_hold(),
        "echo" => echo(number(1)?),
        "pair" => pair(number(1)?),
        "reader" => reader(),
        "never-looks" => never_looks(),
        "maps" => maps(),
        "join" => join(),
        "join-twice" => join_twice(),
        "follow-deaths" => follow_deaths(),
        "latch" => latch(),
        "read-when-told" => read_when_told(number(1)?),
        "signals" => signals(),
        "few-descriptors" => limits::few_descriptors(number(1)?),
        "many-topics" => limits::many_topics(number(1)?),
        "starve-receiving" => limits::starve_receiving(),
        "starve-sending" => limits::starve_sending(),
        "big-pool" => big_pool(args.get(1).context("a directory")?, number(2)?, number(3)?),
        "control-serve" => control::serve(args.get(1).context("a name")?),
        "control-hold" => control::hold(args.get(1).context("a name")?),
        "control-call" => control::call(args.get(1).context("a name")?, number(2)?),
        "control-call-once" => control::call_once(args.get(1).context("a name")?, args.get(2).context("a question")?),
        "control-come-and-go" => control::come_and_go(),
        "ring-client" => ring::client_by_hand(args.get(1).context("a name")?),
        "ring-worker" => ring::worker_by_hand(args.get(1).context("a name")?, &args[2], number(3)?),
        "ring-client-for-ever" => ring::client_for_ever(&args[1], args[2].parse()?, &args[3], &args[4], &args[5]),
        "ring-worker-for-ever" => {
            ring::worker_for_ever(&args[1], args[2].parse()?, &args[3], &args[4], &args[5], (number(6)?, number(7)?))
        }
        "check" => growing::check(number(1)?),
        "grow-for-ever" => growing::grow_for_ever(),
        "grow-until-full" => growing::grow_until_full(args.get(1).context("a directory")?),
        "fork-and-exit" => forking::fork_and_exit(),
        "fork-and-use" => forking::fork_and_use(),
        "fork-weights" => forking::fork_weights(),
        "fork-ring" => forking::fork_ring(),
        "fork-service" => forking::fork_service(),
        "ring-idle" => ring_idle(args.get(1).context("a name")?),
        "hostile" => hostile::run(),
        "models" => models::run(),
        "models-for-ever" => models::run_for_ever(),
        "crash" => crash::run(args.get(1).context("a job")?),
        "weights-publish" => weights::publish(args.get(1).context("a name")?, number(2)? as u32, number(3)?),
        "weights-publish-for-ever" => weights::publish_for_ever(number(1)?),
        "weights-attach" => weights::attach(args.get(1).context("a name")?),
        "weights-map" => weights::map(args.get(1).context("a path")?),
        "onnx-run" => onnx::run(args.get(1).context("a graph")?, number(2)?),
        "onnx-import-for-ever" => onnx::import_for_ever(args.get(1).context("a cache")?, &args[2..]),
        other => bail!("no role {other}"),
    }
}

fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Waits for the parent: false when it closed stdin.
fn told() -> bool {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0)
}

/// A client of a ring that does nothing.
fn ring_idle(name: &str) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let _client = bus.ring(name).client()?;
    say("ready");
    told();
    Ok(())
}

fn pattern(sequence: usize, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(sequence as u32)).collect()
}

/// Publishes `count` messages of `len` numbers when told, then waits for the end.
fn publish(count: usize, len: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let publisher = bus.topic("numbers").slot_bytes(len * 4).overflow(Overflow::Block(PATIENCE)).publisher()?;
    say("ready");
    told();
    for sequence in 0..count {
        let mut tensor = publisher.loan(Dtype::U32, &[len])?;
        tensor.view_mut::<u32>()?.copy_from_slice(&pattern(sequence, len));
        tensor.metadata_mut().set("n", sequence as i64);
        tensor.publish()?;
    }
    say("published");
    told();
    Ok(())
}

/// Joins, makes ports, publishes, leaves, and again, until it is killed.
fn publish_for_ever() -> anyhow::Result<()> {
    say("ready");
    loop {
        let bus = Bus::open()?;
        let subscriber = bus.topic("numbers").subscriber()?;
        let publisher = bus.topic("numbers").slot_bytes(64 * 1024).publisher()?;
        for sequence in 0..50 {
            let mut tensor = publisher.loan(Dtype::U32, &[256])?;
            tensor.view_mut::<u32>()?.copy_from_slice(&pattern(sequence, 256));
            tensor.publish()?;
            let _ = subscriber.try_recv()?;
        }
    }
}

/// Loans a slot, writes half of it, and waits to be killed.
fn hold_loan() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let publisher = bus.topic("numbers").publisher()?;
    publisher.publish_copy(&[1u32, 2, 3], &[3])?;
    let mut tensor = publisher.loan(Dtype::U32, &[3])?;
    tensor.view_mut::<u32>()?[0] = 666;
    say("holding");
    told();
    drop(tensor);
    Ok(())
}

/// Subscribes, takes as many messages as it may hold, and keeps them.
fn subscribe_and_hold() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("numbers").subscriber()?;
    say("ready");
    let held: Vec<Message> = (0..4).map(|_| subscriber.recv(PATIENCE)).collect::<Result<_, _>>()?;
    say("holding");
    told();
    drop(held);
    Ok(())
}

/// Answers each of `count` messages on `ping` with the same number on `pong`, asleep in between.
fn echo(count: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let ping = bus.topic("ping").spin(Duration::ZERO).subscriber()?;
    let pong = bus.topic("pong").slot_bytes(8).publisher()?;
    say("ready");
    for _ in 0..count {
        let message = ping.recv(PATIENCE)?;
        pong.publish_copy(message.first().view::<u64>()?, &[1])?;
    }
    told();
    Ok(())
}

/// Subscribes, and never looks for a message.
fn never_looks() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let _subscriber = bus.topic("numbers").subscriber()?;
    say("ready");
    told();
    Ok(())
}

/// Does with its messages what each line on stdin says, and prints their number and how many were lost before them.
fn reader() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("numbers").subscriber()?;
    anyhow::ensure!(subscriber.try_recv()?.is_none(), "the first look opens the connection, and finds nothing");
    say("ready");
    let mut held = Vec::new();
    let tell = |message: &Message| say(format!("{} lost {}", message.sequence(), message.lost()));
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "read" => tell(&subscriber.recv(PATIENCE)?),
            "hold" => {
                let message = subscriber.recv(PATIENCE)?;
                tell(&message);
                held.push(message);
            }
            "look" => match subscriber.try_recv() {
                Ok(Some(message)) => tell(&message),
                Ok(None) => say("nothing"),
                Err(ReceiveError::TooManyHeld { limit, .. }) => say(format!("{limit} are held")),
                Err(error) => return Err(error.into()),
            },
            "let go" => {
                held.clear();
                say("let go");
            }
            "stats" => say(format!("{} received, {} lost", subscriber.stats().received, subscriber.stats().lost)),
            other => bail!("no order {other}"),
        }
    }
    Ok(())
}

/// Says which backend it has, starts a process that answers, and exchanges `count` messages with it.
fn pair(count: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    say(format!("backend: {}", bus.backend()));
    let pong = bus.topic("pong").subscriber()?;
    let (count_text, myself) = (count.to_string(), std::env::current_exe()?);
    let mut answering = Command::new(myself)
        .args(["echo", &count_text])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the process that answers")?;
    let mut line = String::new();
    BufReader::new(answering.stdout.take().context("piped")?).read_line(&mut line)?;
    anyhow::ensure!(line == "ready\n", "it said {line:?}");
    let ping = bus.topic("ping").slot_bytes(8).publisher()?;
    for number in 0..count as u64 {
        anyhow::ensure!(ping.publish_copy(&[number], &[1])? == 1, "nobody got number {number}");
        let answer = pong.recv(PATIENCE)?;
        anyhow::ensure!(answer.first().view::<u64>()? == [number], "another number came back");
    }
    say("exchanged");
    told();
    drop(answering.stdin.take());
    anyhow::ensure!(answering.wait()?.success(), "the process that answered failed");
    Ok(())
}

/// Receives one message and prints how the memory it lies in is mapped.
fn maps() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("numbers").subscriber()?;
    say("ready");
    let message = subscriber.recv(PATIENCE)?;
    let address = message.first().bytes().as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let line = maps
        .lines()
        .find(|line| {
            let (start, rest) = line.split_once('-').unwrap_or_default();
            let end = rest.split(' ').next().unwrap_or_default();
            let number = |text| usize::from_str_radix(text, 16).unwrap_or_default();
            (number(start)..number(end)).contains(&address)
        })
        .context("the tensor lies in no mapping")?;
    say(line);
    told();
    Ok(())
}

/// Is a member of the session until it is told to leave.
fn join() -> anyhow::Result<()> {
    let _bus = Bus::open()?;
    say("joined");
    told();
    Ok(())
}

/// Is a member of the session twice until it ends.
fn join_twice() -> anyhow::Result<()> {
    let _members = (Bus::open()?, Bus::open()?);
    say("joined");
    told();
    Ok(())
}

/// Prints the process ids of two members that die.
fn follow_deaths() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let mut deaths = bus.deaths()?;
    say("following");
    for _ in 0..2 {
        say(deaths.recv(PATIENCE)?.context("nobody died")?.pid);
    }
    anyhow::ensure!(!told());
    anyhow::ensure!(deaths.try_recv()?.is_none(), "a death was told twice");
    Ok(())
}

/// Publishes three messages, of which late joiners get two, and never another one.
fn latch() -> anyhow::Result<()> {
    let bus = Bus::builder().service_thread(Duration::from_millis(5)).open()?;
    let publisher = bus.topic("numbers").history(2).publisher()?;
    for number in 1..=3u32 {
        publisher.publish_copy(&[number], &[1])?;
    }
    say("published");
    told();
    Ok(())
}

/// Subscribes, and looks for messages only when it is told to; prints what is in them.
fn read_when_told(count: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("numbers").subscriber()?;
    say("ready");
    told();
    for _ in 0..count {
        let message = subscriber.recv(PATIENCE)?;
        say(message.first().view::<u32>()?[0]);
    }
    Ok(())
}

/// Prints whether a bus leaves the process's signal handlers alone, whatever they were.
fn signals() -> anyhow::Result<()> {
    let handlers = || {
        [libc::SIGINT, libc::SIGTERM].map(|signal| {
            // SAFETY: zeroed is a valid `sigaction`, which the next call fills.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: asks for the present action only; the pointer is valid for the call.
            let result = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
            assert_eq!(result, 0, "sigaction failed");
            action.sa_sigaction
        })
    };
    let before = handlers();
    let bus = Bus::open()?;
    let _subscriber = bus.topic("numbers").subscriber()?;
    say(if handlers() == before { "as before" } else { "changed" });
    Ok(())
}

/// Makes a pool in a directory of the parent's choice and prints what became of it.
fn big_pool(directory: &str, slots: usize, slot_bytes: usize) -> anyhow::Result<()> {
    let bus = Bus::builder().directory(directory).session("pool").open()?;
    match bus.topic("numbers").slots(slots).slot_bytes(slot_bytes).publisher() {
        Ok(publisher) => {
            for _ in 0..2 * slots {
                let mut tensor = publisher.loan(Dtype::U8, &[slot_bytes])?;
                tensor.view_mut::<u8>()?.fill(1);
                tensor.publish()?;
            }
            say("written");
        }
        Err(error) => say(format!("error: {error}")),
    }
    drop(bus);
    say(format!("left: {}", std::fs::read_dir(directory)?.count()));
    Ok(())
}
