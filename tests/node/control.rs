//! Servers and clients of control services.

use std::time::Duration;

use tensorbus::prelude::*;
use tensorbus::{CallError, ReplyError};

use super::{PATIENCE, say, told};

/// Answers every request with its bytes and its own process id, until it is killed.
pub(crate) fn serve(name: &str) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let server = bus.service(name).server()?;
    say("serving");
    loop {
        let request = server.recv(PATIENCE)?;
        let reply = format!("{} from {}", String::from_utf8_lossy(request.bytes()), std::process::id());
        // A client that was killed is no reason to stop.
        let _ = request.reply(reply.as_bytes());
    }
}

/// Takes one request and holds it until it is told to reply, then says what became of the reply; then serves on.
pub(crate) fn hold(name: &str) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let server = bus.service(name).server()?;
    say("serving");
    let request = server.recv(PATIENCE)?;
    say("holding");
    told();
    say(match request.reply(b"late") {
        Ok(()) => "replied".to_owned(),
        Err(ReplyError::ClientGone { .. }) => "client gone".to_owned(),
        Err(error) => format!("error: {error}"),
    });
    let request = server.recv(PATIENCE)?;
    let bytes = request.bytes().to_vec();
    request.reply(&bytes)?;
    told();
    Ok(())
}

/// Makes a client, then `count` calls when told, each of which must be answered with its own bytes.
pub(crate) fn call(name: &str, count: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let mut client = bus.service(name).client()?;
    say("ready");
    told();
    for number in 0..count {
        let question = format!("{} asks {number}", std::process::id());
        let reply = String::from_utf8(client.call(question.as_bytes(), PATIENCE)?)?;
        let answer = reply.rsplit_once(" from ").map(|(answer, _)| answer);
        anyhow::ensure!(answer == Some(question.as_str()), "asked {question:?}, got {reply:?}");
    }
    say("answered");
    told();
    Ok(())
}

/// Makes one call and says how it ended.
pub(crate) fn call_once(name: &str, question: &str) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let mut client = bus.service(name).client()?;
    say("ready");
    told();
    say(match client.call(question.as_bytes(), PATIENCE) {
        Ok(reply) => format!("reply: {}", String::from_utf8_lossy(&reply)),
        Err(CallError::ServerGone { .. }) => "server gone".to_owned(),
        Err(CallError::NoReply { .. }) => "no reply".to_owned(),
        Err(CallError::BadReply { reason, .. }) => format!("bad reply: {reason:?}"),
        Err(error) => format!("error: {error}"),
    });
    told();
    Ok(())
}

/// Enters the session, makes a server, a client and a call, and leaves, again and again until it is killed.
pub(crate) fn come_and_go() -> anyhow::Result<()> {
    say("ready");
    loop {
        let bus = Bus::open()?;
        let mut client = bus.service("steady").client()?;
        let server = bus.service("restless").server()?;
        client.call(b"still there?", PATIENCE)?;
        let _ = server.recv(Duration::ZERO);
    }
}
