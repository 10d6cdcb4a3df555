//! Control services: requests and replies between processes, and what happens when one of them dies or lies.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tensorbus::wire::{CONTROL_MAGIC, ControlKind};
use tensorbus::{
    CallError, ControlServer, MAX_CONTROL_BYTES, MAX_CONTROL_CLIENTS, ReplyError, RequestError, ServiceError,
};

use crate::support::{PATIENCE, Random, Session, eventually, is_readable};

const SHORT: Duration = Duration::from_millis(1);

/// Answers requests until `done` says so.
fn serve_until(server: &ControlServer, mut done: impl FnMut() -> bool) {
    while !done() {
        if let Ok(request) = server.recv(Duration::from_millis(20)) {
            let bytes = request.bytes().to_vec();
            let _ = request.reply(&bytes);
        }
    }
}

#[test]
fn a_call_is_answered_by_another_process() {
    let session = Session::new();
    let bus = session.bus();
    let node = session.node("control-serve", &["health"]);
    node.expect("serving");
    let mut client = bus.service("health").client().unwrap();
    for question in ["", "are you well?", &"x".repeat(MAX_CONTROL_BYTES - 20)] {
        let reply = client.call(question.as_bytes(), PATIENCE).unwrap();
        assert_eq!(reply, format!("{question} from {}", node.pid()).into_bytes());
    }
    assert!(bus.topics().unwrap().is_empty(), "a control service is no topic");
}

#[test]
fn the_largest_messages_arrive_whole() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("large").server().unwrap();
    let mut client = bus.service("large").client().unwrap();
    let question: Vec<u8> = (0..MAX_CONTROL_BYTES).map(|i| (i % 251) as u8).collect();
    let expected: Vec<u8> = question.iter().rev().copied().collect();
    let asked = question.clone();
    let call = std::thread::spawn(move || (client.call(&asked, PATIENCE), client));
    let request = server.recv(PATIENCE).unwrap();
    assert_eq!(request.bytes(), question);
    request.reply(&expected).unwrap();
    let (reply, mut client) = call.join().unwrap();
    assert_eq!(reply.unwrap(), expected);

    let error = client.call(&vec![0; MAX_CONTROL_BYTES + 1], PATIENCE).unwrap_err();
    assert!(matches!(error, CallError::TooLarge { len, .. } if len == MAX_CONTROL_BYTES + 1), "{error:?}");
    let call = std::thread::spawn(move || client.call(b"too much", PATIENCE));
    let request = server.recv(PATIENCE).unwrap();
    let error = request.reply(&vec![0; MAX_CONTROL_BYTES + 1]).unwrap_err();
    assert!(matches!(error, ReplyError::TooLarge { .. }), "{error:?}");
    assert!(matches!(call.join().unwrap(), Err(CallError::NoReply { .. })), "the client is told");
}

#[test]
fn eight_clients_at_once_each_get_their_own_answers() {
    let session = Session::new();
    let _bus = session.bus();
    let server = session.node("control-serve", &["health"]);
    server.expect("serving");
    // Each looks twice whether the other one lives: under AddressSanitizer on a busy machine a call takes a twentieth of a second.
    let mut clients: Vec<_> = (0..8).map(|_| session.node("control-call", &["health", "15"])).collect();
    for client in &mut clients {
        client.expect("ready");
    }
    for client in &mut clients {
        client.tell("go");
    }
    for client in clients {
        client.expect("answered");
        assert!(client.end().success());
    }
}

#[test]
fn without_a_server_a_call_fails_at_once() {
    let session = Session::new();
    let bus = session.bus();
    let mut client = bus.service("health").client().unwrap();
    let error = client.call(b"?", PATIENCE).unwrap_err();
    assert!(matches!(error, CallError::NoServer { .. }), "{error:?}");
    let mut node = session.node("control-serve", &["health"]);
    node.expect("serving");
    client.call(b"?", PATIENCE).unwrap();
    node.kill();
    let error = client.call(b"?", PATIENCE).unwrap_err();
    assert!(matches!(error, CallError::NoServer { .. } | CallError::ServerGone { .. }), "{error:?}");
}

/// FR-009: nobody cleans up here; the client notices by itself, and the next server has the name at once.
#[test]
fn a_server_killed_before_its_reply_is_an_error_and_is_replaced() {
    let session = Session::new();
    let bus = session.bus();
    let mut first = session.node("control-hold", &["health"]);
    first.expect("serving");
    let mut client = bus.service("health").client().unwrap();
    let call = std::thread::spawn(move || (client.call(b"?", PATIENCE), client));
    first.expect("holding");
    first.kill();
    let (reply, mut client) = call.join().unwrap();
    assert!(matches!(reply, Err(CallError::ServerGone { .. })), "{reply:?}");
    let second = session.node("control-serve", &["health"]);
    second.expect("serving");
    let reply = client.call(b"again", PATIENCE).unwrap();
    assert_eq!(reply, format!("again from {}", second.pid()).into_bytes());
}

#[test]
fn a_server_that_ends_orderly_ends_the_call_too() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("health").server().unwrap();
    let mut client = session.node("control-call-once", &["health", "?"]);
    client.expect("ready");
    client.tell("go");
    let request = server.recv(PATIENCE).unwrap();
    drop(server);
    let refused = bus.service("health").server();
    assert!(matches!(refused, Err(ServiceError::HasServer { .. })), "a held request keeps its server: {refused:?}");
    drop(request);
    // Whether the client looks before or after the port is gone.
    let end = client.line();
    assert!(["no reply", "server gone"].contains(&end.as_str()), "{end}");
    assert!(bus.service("health").server().is_ok());
}

#[test]
fn a_reply_to_a_killed_client_is_an_error_and_the_server_goes_on() {
    let session = Session::new();
    let bus = session.bus();
    let mut server = session.node("control-hold", &["health"]);
    server.expect("serving");
    let mut client = session.node("control-call-once", &["health", "?"]);
    client.expect("ready");
    client.tell("go");
    server.expect("holding");
    client.kill();
    server.tell("reply");
    server.expect("client gone");
    let mut client = bus.service("health").client().unwrap();
    assert_eq!(client.call(b"next", PATIENCE).unwrap(), b"next");
}

/// The next client takes the dead one's place while the server still holds the dead one's request.
#[test]
fn a_late_reply_does_not_reach_the_next_client_in_the_same_place() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("health").server().unwrap();
    for _ in 0..4 {
        let mut dead = session.node("control-call-once", &["health", "first"]);
        dead.expect("ready");
        dead.tell("go");
        let first = server.recv(PATIENCE).unwrap();
        dead.kill();
        let mut next = session.node("control-call-once", &["health", "second"]);
        next.expect("ready");
        next.tell("go");
        let second = server.recv(PATIENCE).unwrap();
        assert_eq!((first.bytes(), second.bytes()), (&b"first"[..], &b"second"[..]));
        assert!(matches!(first.reply(b"to the first"), Err(ReplyError::ClientGone { .. })));
        second.reply(b"to the second").unwrap();
        next.expect("reply: to the second");
    }
}

#[test]
fn a_client_that_gives_up_is_told_apart_and_its_queue_is_bounded() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("slow").server().unwrap();
    let mut client = bus.service("slow").client().unwrap();
    let gave_up = client.call(b"1", SHORT).unwrap_err();
    assert!(matches!(gave_up, CallError::Timeout { waited: SHORT, .. }), "{gave_up:?}");
    let full = client.call(b"2", SHORT).unwrap_err();
    assert!(matches!(full, CallError::QueueFull { .. }), "{full:?}");
    // A request that nobody waits for is not given out.
    assert!(matches!(server.recv(Duration::ZERO), Err(RequestError::Timeout { .. })));

    let call = std::thread::spawn(move || (client.call(b"3", Duration::from_millis(200)), client));
    let third = server.recv(PATIENCE).unwrap();
    let (reply, mut client) = call.join().unwrap();
    assert!(matches!(reply, Err(CallError::Timeout { .. })), "{reply:?}");
    assert!(matches!(third.reply(b"late"), Err(ReplyError::ClientGone { .. })));

    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve_until(&server, || done.load(std::sync::atomic::Ordering::Relaxed)));
        for number in 0..50u8 {
            assert_eq!(client.call(&[number], PATIENCE).unwrap(), [number]);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_call_ends_when_it_is_not_wanted_any_more() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("slow").server().unwrap();
    let mut client = bus.service("slow").client().unwrap();
    let wanted = &std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        let go_on = || wanted.load(std::sync::atomic::Ordering::Relaxed);
        let asking = &mut client;
        let call = scope.spawn(move || asking.call_while(b"question", Duration::MAX, go_on));
        let request = server.recv(PATIENCE).unwrap();
        wanted.store(false, std::sync::atomic::Ordering::Relaxed);
        let ended = call.join().unwrap().unwrap_err();
        assert!(matches!(ended, CallError::Abandoned { .. }), "{ended:?}");
        assert!(matches!(request.reply(b"late"), Err(ReplyError::ClientGone { .. })));
    });
    let call = std::thread::spawn(move || client.call(b"question", PATIENCE));
    server.recv(PATIENCE).unwrap().reply(b"answer").unwrap();
    assert_eq!(call.join().unwrap().unwrap(), b"answer");
}

#[test]
fn a_request_makes_an_armed_server_readable() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("health").server().unwrap();
    let mut client = bus.service("health").client().unwrap();
    for number in 0..3u8 {
        server.arm().unwrap();
        assert!(server.try_recv().unwrap().is_none());
        assert!(!is_readable(server.as_fd().unwrap(), Duration::ZERO));
        std::thread::scope(|scope| {
            let call = scope.spawn(|| client.call(&[number], PATIENCE));
            assert!(is_readable(server.as_fd().unwrap(), PATIENCE));
            server.try_recv().unwrap().unwrap().reply(&[number + 1]).unwrap();
            assert_eq!(call.join().unwrap().unwrap(), [number + 1]);
        });
    }
}

#[test]
fn a_service_has_one_server_and_a_bounded_number_of_clients() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("health").server().unwrap();
    let second = bus.service("health").server().unwrap_err();
    assert!(matches!(second, ServiceError::HasServer { .. }), "{second:?}");
    assert!(bus.service("other").server().is_ok(), "another name is free");
    let clients: Vec<_> = (0..MAX_CONTROL_CLIENTS).map(|_| bus.service("health").client().unwrap()).collect();
    let one_more = bus.service("health").client().unwrap_err();
    assert!(matches!(one_more, ServiceError::TooManyClients { .. }), "{one_more:?}");
    drop(clients);
    assert!(bus.service("health").client().is_ok());
    drop(server);
    assert!(bus.service("health").server().is_ok());
}

/// The first one fixes how large messages are, and how many clients there are; the others may say the same, or nothing.
#[test]
fn settings_are_fixed_by_the_first_and_checked() {
    let session = Session::new();
    let bus = session.bus();
    let small = || bus.service("health").max_request_bytes(100).max_reply_bytes(10).max_clients(2);
    let server = small().server().unwrap();
    let mut client = small().client().unwrap();
    let _other = bus.service("health").client().unwrap();
    let one_more = small().client().unwrap_err();
    assert!(matches!(one_more, ServiceError::TooManyClients { limit: 2, .. }), "{one_more}");
    for (differing, setting, existing, requested) in [
        (small().max_request_bytes(101), "max_request_bytes", 100, 101),
        (small().max_reply_bytes(9), "max_reply_bytes", 10, 9),
        (small().max_clients(1), "max_clients", 2, 1),
    ] {
        match differing.client().unwrap_err() {
            ServiceError::Mismatch { setting: s, existing: e, requested: r, .. } => {
                assert_eq!((s, e, r), (setting, existing, requested));
            }
            other => panic!("{other}"),
        }
    }
    let error = client.call(&[1; 101], PATIENCE).unwrap_err();
    assert!(matches!(error, CallError::TooLarge { len: 101, max: 100, .. }), "{error}");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call(&[1; 100], PATIENCE));
        let request = server.recv(PATIENCE).unwrap();
        assert_eq!(request.bytes(), [1; 100]);
        request.reply(&[2; 10]).unwrap();
        assert_eq!(call.join().unwrap().unwrap(), [2; 10]);
    });
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call(b"?", PATIENCE));
        let error = server.recv(PATIENCE).unwrap().reply(&[2; 11]).unwrap_err();
        assert!(matches!(error, ReplyError::TooLarge { len: 11, max: 10, .. }), "{error}");
        assert!(matches!(call.join().unwrap(), Err(CallError::NoReply { .. })));
    });
    for (wrong, setting) in [
        (bus.service("other").max_request_bytes(0), "max_request_bytes"),
        (bus.service("other").max_reply_bytes(MAX_CONTROL_BYTES + 1), "max_reply_bytes"),
        (bus.service("other").max_clients(MAX_CONTROL_CLIENTS + 1), "max_clients"),
    ] {
        let error = wrong.server().unwrap_err();
        assert!(matches!(error, ServiceError::Setting { setting: s, .. } if s == setting), "{error}");
    }
    assert!(!session.files().iter().any(|path| path.to_string_lossy().contains("other")), "nothing was made");
}

/// Boards of bells that lie in the session.
fn boards(session: &Session) -> Vec<String> {
    let files = session.files();
    let boards = files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "bells"));
    boards.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// FR-009: what wakes goes with who is woken, living or killed; and a topic of the same name has its own.
#[test]
fn a_service_and_a_topic_of_one_name_wake_apart() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("a/b").subscriber().unwrap();
    let publisher = bus.topic("a/b").publisher().unwrap();
    let server = bus.service("a/b").server().unwrap();
    assert_eq!(boards(&session), ["control:a:b.bells", "topic:a:b.bells"]);
    drop(server);
    assert_eq!(boards(&session), ["topic:a:b.bells"]);
    let mut node = session.node("control-serve", &["a/b"]);
    node.expect("serving");
    assert_eq!(boards(&session).len(), 2);
    node.kill();
    bus.remove_dead().unwrap();
    assert_eq!(boards(&session), ["topic:a:b.bells"]);
    publisher.publish_copy(&[1u8], &[1]).unwrap();
    assert!(subscriber.recv(PATIENCE).is_ok());
}

/// What this process takes away from the mode of every file that it makes.
fn umask() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("Umask:")).unwrap().to_owned()
}

/// FR-009: in sessions of their own, so that the threads do not take turns. A socket that iceoryx2 makes changes the umask for a
/// moment, and for ever if two threads make one at the same time.
#[test]
fn servers_made_by_threads_leave_the_umask_alone() {
    let before = umask();
    let sessions = [Session::new(), Session::new(), Session::new(), Session::new()];
    let start = std::sync::Barrier::new(sessions.len());
    let make = |session: &Session| {
        let bus = session.bus();
        let made = (0..25).map(|_| {
            start.wait();
            let server = bus.service("health").server();
            (server.err().map(|error| error.to_string()), umask())
        });
        made.collect::<Vec<_>>()
    };
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions.iter().map(|session| scope.spawn(|| make(session))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for after_each in made {
        assert_eq!(after_each, (None, before.clone()));
    }
    assert_eq!(umask(), before);
}

#[test]
fn illegal_names_are_refused() {
    let session = Session::new();
    let bus = session.bus();
    for name in ["", "/a", "a/", "a b", "\u{e4}", &"x".repeat(129)] {
        assert!(matches!(bus.service(name).server(), Err(ServiceError::Name { .. })), "{name}");
        assert!(matches!(bus.service(name).client(), Err(ServiceError::Name { .. })), "{name}");
    }
    let _server = bus.service(&"x".repeat(128)).server().unwrap();
}

/// What a peer may write into the header, by offset, and the rule that it breaks.
const LIES: &[(u64, &[u8], &str)] = &[
    (0, b"XXXX", "NotAMessage"),
    (4, &[2, 0], "OtherVersion"),
    (6, &[9, 0], "Kind"),
    (8, &[1, 0, 1, 0], "Length"),
    (8, &[0xff; 4], "Length"),
    (12, &[1, 0, 0, 0], "Reserved"),
];

/// Overwrites part of the header of every message of this kind that lies in the session. Returns how many there were.
fn scribble(session: &Session, kind: ControlKind, offset: u64, bytes: &[u8]) -> usize {
    let mut found = 0;
    for path in session.files().iter().filter(|path| path.extension().is_some_and(|ending| ending == "pool")) {
        let content = std::fs::read(path).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        for start in (0..content.len().saturating_sub(8)).step_by(8) {
            let begins = content[start..].starts_with(&CONTROL_MAGIC.to_le_bytes());
            if begins && content[start + 6..].starts_with(&(kind as u16).to_le_bytes()) {
                file.write_all_at(bytes, start as u64 + offset).unwrap();
                found += 1;
            }
        }
    }
    found
}

/// FR-020: requests that break a rule are skipped and counted, and the client is told; the server goes on.
#[test]
fn lies_of_a_client_are_skipped() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("health").server().unwrap();
    for (index, (offset, bytes, _)) in LIES.iter().enumerate() {
        let mut client = session.node("control-call-once", &["health", "question"]);
        client.expect("ready");
        client.tell("go");
        eventually("the request lies in shared memory", || {
            scribble(&session, ControlKind::Request, *offset, bytes) > 0
        });
        // The client writes its header before it sends: the scribble may come before the request is queued.
        eventually("the lie is skipped", || {
            assert!(server.recv(SHORT).is_err(), "lie {index} was accepted");
            server.rejected() == index as u64 + 1
        });
        client.expect("no reply");
    }
    let mut client = bus.service("health").client().unwrap();
    let call = std::thread::spawn(move || client.call(b"honest", PATIENCE));
    server.recv(PATIENCE).unwrap().reply(b"still here").unwrap();
    assert_eq!(call.join().unwrap().unwrap(), b"still here");
}

/// FR-020: a reply that breaks a rule is an error that names the rule.
#[test]
fn lies_of_a_server_are_errors_of_the_call() {
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("health").server().unwrap();
    for (offset, bytes, rule) in LIES.iter().chain([&(16, &[0xff; 8][..], "OtherRequest")]) {
        let mut client = session.node("control-call-once", &["health", "?"]);
        client.expect("ready");
        client.tell("go");
        let request = server.recv(PATIENCE).unwrap();
        // Stopped, so that it reads the reply only once the lie is complete.
        let pid = Pid::from_raw(client.pid() as i32).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        eventually("the client is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", client.pid())).unwrap();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        });
        request.reply(b"a lie").unwrap();
        assert!(scribble(&session, ControlKind::Reply, *offset, bytes) > 0);
        kill_process(pid, Signal::CONT).unwrap();
        let line = client.line();
        assert!(line.starts_with(&format!("bad reply: {rule}")), "{rule}: {line}");
    }
}

/// FR-009: kills at random points while ports of services are made, used and dropped leave nothing.
#[test]
fn a_session_full_of_killed_members_stays_usable() {
    let kills: u32 = std::env::var("TENSORBUS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(25);
    let mut random = Random::seeded();
    let session = Session::new();
    let bus = session.bus();
    let server = bus.service("steady").server().unwrap();
    let mut client = bus.service("steady").client().unwrap();
    let before = session.files();
    for _ in 0..kills {
        let mut node = session.node("control-come-and-go", &[]);
        node.expect("ready");
        let end = std::time::Instant::now() + Duration::from_micros(random.below(40_000));
        serve_until(&server, || std::time::Instant::now() > end);
        node.kill();
    }
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call(b"alive", PATIENCE));
        serve_until(&server, || call.is_finished());
        assert_eq!(call.join().unwrap().unwrap(), b"alive");
    });
    drop(bus.service("restless").server().unwrap());
    bus.remove_dead().unwrap();
    // The living let go of their side of a connection at their next look.
    assert!(server.recv(Duration::ZERO).is_err());
    assert_eq!(session.files(), before, "what the killed left is gone");
}

/// FR-009: iceoryx2 may forget a dead node and leave a port of it registered. That of a server would keep its name.
#[test]
fn a_server_whose_node_is_gone_gives_its_name_up() {
    let session = Session::new();
    let bus = session.bus();
    let before = session.files();
    let mut node = session.node("control-serve", &["health"]);
    node.expect("serving");
    session.remove_node_since(&before);
    node.kill();
    let server = bus.service("health").server().unwrap();
    assert!(matches!(bus.service("health").server(), Err(ServiceError::HasServer { .. })), "that one lives");
    drop(server);
}
