//! What happens to the parent's ports when it is forked without exec.

use std::time::Duration;

use tensorbus::SharedWeights;
use tensorbus::prelude::*;

use super::say;

/// Forks; the child drops all it inherited and exits as any program does. The parent's ports go on.
pub(crate) fn fork_and_exit() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("numbers").subscriber()?;
    let publisher = bus.topic("numbers").publisher()?;
    publisher.publish_copy(&[7u32], &[1])?;
    let held = subscriber.recv(Duration::from_secs(10))?;
    let loan = publisher.loan(Dtype::U32, &[1])?;
    // SAFETY: this process has one thread; the child only drops values and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((loan, held, publisher, subscriber, bus));
        std::process::exit(0);
    }
    anyhow::ensure!(wait_for(child)? == 0, "the child failed");
    loan.publish()?;
    for number in 0..100u32 {
        publisher.publish_copy(&[number], &[1])?;
        let message = subscriber.recv(Duration::from_secs(10))?;
        anyhow::ensure!(message.lost() == 0);
    }
    anyhow::ensure!(held.first().view::<u32>()? == [7]);
    anyhow::ensure!(bus.topics()?.len() == 1, "the topic is still there");
    drop((held, publisher, subscriber));
    say("parent goes on");
    Ok(())
}

/// Forks; the child reads the weights that it inherited, drops them, and publishes none. The parent's stay.
pub(crate) fn fork_weights() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let tensor = TensorView::new(&[7u32; 5000], &[5000], &[1])?;
    let weights = SharedWeights::publish(&bus, "w", [("w", tensor.clone())])?;
    // SAFETY: this process has one thread; the child uses no lock that another thread could hold.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let reads = weights.verify().is_ok();
        let refused = SharedWeights::attach(&bus, "w").is_err_and(|error| error.to_string().contains("forked"))
            && SharedWeights::publish(&bus, "w", [("w", tensor)])
                .is_err_and(|error| error.to_string().contains("forked"));
        drop((weights, bus));
        std::process::exit(if reads && refused { 0 } else { 1 });
    }
    anyhow::ensure!(wait_for(child)? == 0, "the child failed");
    weights.verify()?;
    anyhow::ensure!(bus.blobs()?.len() == 1, "the weights are still there");
    drop(weights);
    anyhow::ensure!(bus.blobs()?.is_empty(), "nobody uses them");
    say("parent goes on");
    Ok(())
}

/// Forks; the child gets an error from every call, and opens a bus of its own.
pub(crate) fn fork_and_use() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("numbers").subscriber()?;
    let publisher = bus.topic("numbers").publisher()?;
    let mut loan = publisher.loan(Dtype::U32, &[1])?;
    let server = bus.service("health").server()?;
    let mut client = bus.service("health").client()?;
    let mut asking = bus.service("health").client()?;
    // SAFETY: this process has one thread; the child uses no lock that another thread could hold.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let forked = |text: String| text.contains("forked");
        let refused = forked(publisher.publish_copy(&[1u32], &[1]).unwrap_err().to_string())
            && forked(subscriber.try_recv().unwrap_err().to_string())
            && forked(subscriber.recv(Duration::from_secs(1)).unwrap_err().to_string())
            && forked(loan.view_mut::<u32>().unwrap_err().to_string())
            && forked(loan.publish().unwrap_err().to_string())
            && forked(server.recv(Duration::from_secs(1)).unwrap_err().to_string())
            && forked(client.call(b"?", Duration::from_secs(1)).unwrap_err().to_string())
            && forked(bus.service("other").server().unwrap_err().to_string())
            && forked(bus.topic("other").subscriber().unwrap_err().to_string())
            && forked(bus.remove_dead().unwrap_err().to_string());
        drop((server, client));
        let own = Bus::open().is_ok_and(|bus| bus.topic("numbers").publisher().is_ok());
        std::process::exit(if refused && own { 0 } else { 1 });
    }
    anyhow::ensure!(wait_for(child)? == 0, "the child was not refused, or could not open a bus of its own");
    loan.publish()?;
    subscriber.recv(Duration::from_secs(10))?;
    let call = std::thread::spawn(move || asking.call(b"still there?", Duration::from_secs(10)));
    server.recv(Duration::from_secs(10))?.reply(b"yes")?;
    anyhow::ensure!(call.join().is_ok_and(|reply| reply.is_ok_and(|reply| reply == b"yes")));
    say("parent goes on");
    Ok(())
}

/// Forks a process that has a service thread: the child has none, and ends like any other.
pub(crate) fn fork_service() -> anyhow::Result<()> {
    let bus = Bus::builder().service_thread(Duration::from_millis(1)).open()?;
    let publisher = bus.topic("numbers").slot_bytes(64).publisher()?;
    let mut deaths = bus.deaths()?;
    let service = bus.service_thread().unwrap();
    while service.ticks() == 0 {
        std::thread::yield_now();
    }
    // SAFETY: the child only uses what takes no lock that the service thread could hold, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let has_none = !service.is_running() && deaths.try_recv().is_err();
        drop((publisher, deaths, bus));
        std::process::exit(if has_none { 0 } else { 1 });
    }
    anyhow::ensure!(wait_for(child)? == 0, "the child has a service thread, or follows deaths");
    let ticks = service.ticks();
    while service.ticks() < ticks + 3 {
        std::thread::yield_now();
    }
    drop((publisher, deaths, bus));
    say("parent goes on");
    Ok(())
}

fn wait_for(child: libc::pid_t) -> anyhow::Result<i32> {
    let mut status = 0;
    // SAFETY: `child` is a child of this process; the pointer is valid for the call.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    anyhow::ensure!(waited == child, "waitpid failed");
    Ok(status)
}

/// Forks; the child gets an error from every call, drops all it inherited, and exits. The parent's requests go on.
pub(crate) fn fork_ring() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let ring = || bus.ring("model").input("x", Dtype::U8, &[1]).output("y", Dtype::U8, &[1]).rows(4).credits(4);
    let (mut worker, client) = (ring().worker()?, bus.ring("model").client()?);
    let second = Duration::from_secs(1);
    let taken = client.loan(second)?.submit()?;
    let mut batch = worker.take(4, second)?;
    let (mut writing, waiting) = (client.loan(second)?, client.loan(second)?.submit()?);
    // SAFETY: this process has one thread; the child uses no lock that another thread could hold.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let forked = |text: String| text.contains("forked");
        let refused = forked(client.loan(second).unwrap_err().to_string())
            && forked(writing.view_mut::<u8>("x").unwrap_err().to_string())
            && forked(writing.submit().unwrap_err().to_string())
            && forked(waiting.wait(second).unwrap_err().to_string())
            && forked(worker.take(1, second).unwrap_err().to_string())
            && forked(batch.tensors().unwrap_err().to_string())
            && forked(ring().worker().unwrap_err().to_string())
            && forked(ring().client().unwrap_err().to_string());
        batch.finish();
        drop((taken, worker, client, bus));
        std::process::exit(if refused { 0 } else { 1 });
    }
    anyhow::ensure!(wait_for(child)? == 0, "the child failed");
    let counts = client.row_counts();
    anyhow::ensure!((counts.free, counts.writing, counts.ready, counts.running) == (1, 1, 1, 1), "{counts:?}");
    batch.output_bytes_mut(0)?[0] = 7;
    batch.finish();
    anyhow::ensure!(taken.wait(second)?.bytes(0)? == [7]);
    writing.view_mut::<u8>("x")?[0] = 1;
    let writing = writing.submit()?;
    worker.take(4, second)?.finish();
    waiting.wait(second)?;
    drop(writing);
    drop((worker, client));
    anyhow::ensure!(std::fs::read_dir(bus.directory().join("rings"))?.count() == 0, "the child holds nothing");
    say("parent goes on");
    Ok(())
}
