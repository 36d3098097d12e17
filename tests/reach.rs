//! The server from outside its cores: events and broadcasts from other threads and runtimes, across
//! shards, with acknowledgements; who may open a session, and under which id.

#[path = "support/program.rs"]
mod program;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use program::{CROWD, keeping_sockets, wait_for, with_echo};
use raw::{
    CLOSE, Client, FIN, POLLING, Polling, TestServer, WEBSOCKET, frame, on_both_drivers, text,
    until, upgrade,
};
use stentor::{AckError, Data, DriverKind, EmitError, Request, Socket};
// ---- from outside ----

fn events_of_one_thread_arrive_in_its_order(driver: DriverKind) {
    const THREADS: usize = 4;
    const EVENTS: usize = 500;
    let (server, sockets) = keeping_sockets(driver, 2, |_| {});
    let mut client = server.client();
    let socket = sockets.recv().expect("connected");
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (socket, handle) = (socket.clone(), server.handle.clone());
            thread::spawn(move || {
                for n in 0..EVENTS {
                    match n % 3 {
                        0 => socket.emit("n", (thread, n)),
                        1 => handle.to(socket.id()).emit("n", (thread, n)),
                        _ => handle.emit("n", (thread, n)),
                    }
                    .expect("room for mail");
                }
            })
        })
        .collect();
    let mut next = [0; THREADS];
    for _ in 0..THREADS * EVENTS {
        let event = client.next();
        let args = event.strip_prefix(r#"42["n","#).expect("an event").trim_end_matches(']');
        let (thread, n) = args.split_once(',').expect("two arguments");
        let thread: usize = thread.parse().expect("a number");
        assert_eq!(n, next[thread].to_string(), "of thread {thread}");
        next[thread] += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
}

fn what_is_said_upon_something_arrives_after_it(driver: DriverKind) {
    let server = TestServer::start_on(driver, 2, |builder| {
        builder.namespace("/", |ns| {
            ns.on("say", |socket: Socket, Data(n): Data<u32>| {
                // Its own first: once the others have it, one of them may be the next to speak.
                socket.emit("said", n).expect("it is there");
                socket.broadcast().emit("said", n)
            });
        })
    });
    let mut crowd: Vec<(Client, u32)> = (0..CROWD).map(|_| (server.client(), 0)).collect();
    let hear = |(client, heard): &mut (Client, u32), said: u32| {
        for n in *heard..said {
            client.expect(&format!(r#"42["said",{n}]"#));
        }
        *heard = said;
    };
    for said in 0..20 * CROWD as u32 {
        // Each speaks as soon as it has heard the one before it, on whichever core.
        let speaker = &mut crowd[said as usize % CROWD];
        hear(speaker, said);
        speaker.0.send(&format!(r#"42["say",{said}]"#));
    }
    crowd.iter_mut().for_each(|client| hear(client, 20 * CROWD as u32));
}

fn sockets_and_handles_work_in_other_runtimes(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 2, |_| {});
    let mut client = server.client();
    let socket = sockets.recv().expect("connected");
    let handle = server.handle.clone();
    let answering = thread::spawn(move || {
        client.expect(r#"420["question","?"]"#);
        client.send("430[42]");
        client.expect(r#"42["after"]"#);
        client
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async move {
        let asked = tokio::spawn({
            let socket = socket.clone();
            async move { socket.emit_with_ack::<u8>("question", "?").await }
        });
        assert_eq!(asked.await.expect("no panic").expect("an answer"), 42);
        socket.join(["a", "b"]);
        let mut rooms = socket.rooms().await;
        rooms.sort();
        let mut expected = vec![socket.id().to_owned(), "a".to_owned(), "b".to_owned()];
        expected.sort();
        assert_eq!(rooms, expected);
        assert_eq!(socket.try_rooms(), None, "not on its core");
        assert_eq!(handle.fetch_sockets().await, std::slice::from_ref(&socket));
        handle.to("a").emit("after", ()).expect("a live server");
    });
    drop(answering.join().expect("no panic"));
}

fn every_wait_for_an_acknowledgement_ends(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 1, |_| {});
    let mut client = server.client();
    let socket = sockets.recv().expect("connected");
    let short = Duration::from_millis(50);

    let late = wait_for(socket.emit_with_ack::<u8>("q", ()).timeout(short));
    assert!(matches!(late, Err(AckError::Timeout)), "{late:?}");
    client.expect(r#"420["q"]"#);
    // Late, repeated and invented answers are nobody's.
    ["430[1]", "430[1]", "4399[1]"].into_iter().for_each(|answer| client.send(answer));

    let request = socket.emit_with_ack::<u8>("q", ()).into_future();
    client.expect(r#"421["q"]"#);
    client.send(r#"431["text"]"#);
    let wrong = wait_for(request);
    assert!(matches!(wrong, Err(AckError::Decode(_))), "{wrong:?}");

    let request = socket.emit_with_ack::<(u8, String)>("q", ("a", 1)).into_future();
    client.expect(r#"422["q","a",1]"#);
    client.send(r#"432[7,"seven",null]"#);
    assert_eq!(wait_for(request).expect("an answer"), (7, "seven".to_owned()));

    let request = socket.emit_with_ack::<u8>("q", ()).into_future();
    client.expect(r#"423["q"]"#);
    drop(client);
    let gone = wait_for(request);
    assert!(matches!(gone, Err(AckError::Disconnected)), "{gone:?}");
    let gone = wait_for(socket.emit_with_ack::<u8>("q", ()));
    assert!(matches!(gone, Err(AckError::Disconnected)), "{gone:?}");
    let reserved = wait_for(socket.emit_with_ack::<u8>("disconnect", ()));
    assert!(matches!(reserved, Err(AckError::Emit(EmitError::ReservedEventName))), "{reserved:?}");

    let handle = server.handle.clone();
    server.end(Duration::from_secs(5)).expect("a good end");
    let over = wait_for(socket.emit_with_ack::<u8>("q", ()));
    assert!(over.is_err(), "{over:?}");
    assert!(wait_for(handle.fetch_sockets()).is_empty());
    assert!(wait_for(socket.rooms()).is_empty());
    // Whatever it says, it does not wait.
    let _ = wait_for(handle.emit_with_ack::<u8>("q", ()));
    let _ = handle.emit("q", ());
}

fn what_cannot_be_sent_is_an_error(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 1, |ns| {
        ns.on("leave", |socket: Socket| {
            socket.disconnect();
            let refused = socket.emit("n", ());
            assert!(matches!(refused, Err(EmitError::Disconnected)), "{refused:?}");
        });
    });
    let mut client = server.client();
    let socket = sockets.recv().expect("connected");
    assert!(matches!(socket.emit("connect", ()), Err(EmitError::ReservedEventName)));
    assert!(matches!(server.handle.emit("disconnecting", ()), Err(EmitError::ReservedEventName)));
    let keys_of_bytes = std::collections::HashMap::from([(vec![1_u8], 1)]);
    assert!(matches!(socket.emit("n", keys_of_bytes), Err(EmitError::Encode(_))));
    client.send(r#"427["leave"]"#);
    client.expect("41");
}

// ---- broadcasts over two shards ----

struct Crowd {
    server: TestServer,
    clients: Vec<(Client, Socket)>,
}

fn crowd(driver: DriverKind) -> Crowd {
    let (server, sockets) = keeping_sockets(driver, 2, |ns| {
        ns.on("relay", |socket: Socket, Data((to, except)): Data<(Vec<String>, Vec<String>)>| {
            socket.to(to).except(except).emit("relayed", ()).expect("room for mail");
        });
        ns.on("shout", |socket: Socket| socket.broadcast().emit("shouted", ()));
    });
    let clients = (0..CROWD)
        .map(|_| {
            let client = server.client();
            (client, sockets.recv().expect("connected"))
        })
        .collect();
    Crowd { server, clients }
}

impl Crowd {
    /// Everybody is told to stop listening; what came before is compared with `expected`.
    fn expect(&mut self, expected: impl Fn(usize) -> Vec<&'static str>) {
        self.server.handle.emit("end", ()).expect("room for mail");
        for (index, (client, _)) in self.clients.iter_mut().enumerate() {
            let mut got = Vec::new();
            loop {
                match client.next() {
                    end if end == r#"42["end"]"# => break,
                    event => got.push(event),
                }
            }
            let expected: Vec<String> =
                expected(index).into_iter().map(|event| format!("42[\"{event}\"]")).collect();
            assert_eq!(got, expected, "client {index}");
        }
    }
}

fn a_union_reaches_each_socket_once_and_except_wins(driver: DriverKind) {
    let mut crowd = crowd(driver);
    for (index, (_, socket)) in crowd.clients.iter().enumerate() {
        if index % 2 == 0 {
            socket.join("even");
        }
        if index % 3 == 0 {
            socket.join("third");
        }
        if index % 4 == 0 {
            socket.join("quarter");
        }
    }
    let handle = crowd.server.handle.clone();
    let both = handle.to(["even", "third"]);
    both.emit("union", ()).expect("room for mail");
    both.clone().except("quarter").emit("less", ()).expect("room for mail");
    handle.to("even").to("even").except(["even"]).emit("nobody", ()).expect("room for mail");
    handle.except("even").emit("odd", ()).expect("room for mail");
    let id = crowd.clients[5].1.id().to_owned();
    handle.to(&id).to("quarter").except("third").emit("one more", ()).expect("room for mail");
    both.emit("union again", ()).expect("room for mail");
    crowd.expect(|index| {
        let (even, third, quarter) = (index % 2 == 0, index % 3 == 0, index % 4 == 0);
        let mut events = Vec::new();
        events.extend((even || third).then_some("union"));
        events.extend(((even || third) && !quarter).then_some("less"));
        events.extend((!even).then_some("odd"));
        events.extend(((index == 5 || quarter) && !third).then_some("one more"));
        events.extend((even || third).then_some("union again"));
        events
    });
}

fn the_sender_of_a_broadcast_is_left_out(driver: DriverKind) {
    let mut crowd = crowd(driver);
    for index in [1, 2, 3] {
        crowd.clients[index].1.join("room");
    }
    wait_for(crowd.clients[3].1.rooms());
    crowd.clients[1].0.send(r#"427["relay",["room"],[]]"#);
    crowd.clients[1].0.expect("437[]");
    // The same sender: between senders on different shards there is no order.
    crowd.clients[1].0.send(r#"427["shout"]"#);
    crowd.clients[1].0.expect("437[]");
    crowd.expect(|index| match index {
        1 => vec![],
        2 | 3 => vec!["relayed", "shouted"],
        _ => vec!["shouted"],
    });
}

fn sockets_are_moved_and_found_across_shards(driver: DriverKind) {
    let mut crowd = crowd(driver);
    let handle = crowd.server.handle.clone();
    handle.sockets_join(["all", "some"]).expect("room for mail");
    let last = crowd.clients[CROWD - 1].1.clone();
    handle.to(last.id()).sockets_leave("some").expect("room for mail");
    assert_eq!(wait_for(handle.fetch_sockets()).len(), CROWD);
    assert_eq!(wait_for(handle.to("all").fetch_sockets()).len(), CROWD);
    let some = wait_for(handle.to("some").fetch_sockets());
    assert_eq!(some.len(), CROWD - 1);
    assert!(!some.contains(&last));
    assert_eq!(wait_for(handle.to("nowhere").fetch_sockets()), []);
    handle.to("some").emit("some", ()).expect("room for mail");
    crowd.expect(|index| if index == CROWD - 1 { vec![] } else { vec!["some"] });

    handle.to("some").disconnect_sockets(false).expect("room for mail");
    for (client, _) in &mut crowd.clients[..CROWD - 1] {
        client.expect("41");
    }
    // Their connections stay, and may join again.
    crowd.clients[0].0.send("40");
    assert!(crowd.clients[0].0.next().starts_with("40{"));
    assert_eq!(wait_for(handle.fetch_sockets()).len(), 2);
    handle.disconnect_sockets(true).expect("room for mail");
    for index in [0, CROWD - 1] {
        crowd.clients[index].0.expect("41");
        assert_eq!(crowd.clients[index].0.raw.close_code(), 1000);
    }
    until("two sessions are gone", || handle.sessions() == CROWD - 2);
}

fn a_broadcast_collects_acknowledgements_of_all_who_stay(driver: DriverKind) {
    let mut crowd = crowd(driver);
    let handle = crowd.server.handle.clone();
    let request = handle.emit_with_ack::<usize>("q", ()).timeout(Duration::from_secs(20));
    let request = request.into_future();
    let mut ids = Vec::new();
    for (index, (client, _)) in crowd.clients.iter_mut().enumerate() {
        let question = client.next();
        let id = question.strip_prefix("42").and_then(|rest| rest.strip_suffix(r#"["q"]"#));
        let id = id.expect("a question").to_owned();
        match index {
            // Leaves without an answer, or with one of the wrong type.
            0 => client.send("41"),
            1 => client.raw.send(frame(FIN | CLOSE, b"")),
            2 => client.send(&format!(r#"43{id}["text"]"#)),
            _ => client.send(&format!("43{id}[{index}]")),
        }
        ids.push(id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one id for all: {ids:?}");
    let mut answers = wait_for(request).expect("a live server");
    answers.answers.sort_unstable();
    assert!(answers.answers.iter().copied().eq(3..CROWD), "{answers:?}");
    assert_eq!((answers.missing, answers.undecodable), (2, 1));
    assert!(!answers.is_complete());

    let nobody = wait_for(handle.to("nowhere").emit_with_ack::<u8>("q", ())).expect("at once");
    assert!(nobody.is_complete() && nobody.answers.is_empty());
    let silent = handle.emit_with_ack::<u8>("q", ()).timeout(Duration::from_millis(50));
    assert_eq!(wait_for(silent).expect("a live server").missing, CROWD - 2);
}

// ---- who may open a session, and under which id ----

fn allow_request_decides_at_once_or_later(driver: DriverKind) {
    let decide = |request: &Request| match request.query("token").as_deref() {
        Some("good") => Ok(()),
        Some(_) => Err("bad token".to_owned()),
        None => Err(String::new()),
    };
    let plain = TestServer::start(driver, |builder| with_echo(builder).allow_request(decide));
    let late = TestServer::start(driver, |builder| {
        with_echo(builder).allow_request_async(move |request: Arc<Request>| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            decide(&request)
        })
    });
    for server in [&plain, &late] {
        let refused = server.raw().get(&format!("{POLLING}&token=bad"));
        assert_eq!((refused.status, refused.text()), (403, r#"{"code":4,"message":"bad token"}"#));
        let refused = server.raw().get(POLLING);
        assert_eq!((refused.status, refused.text()), (403, r#"{"code":4,"message":"Forbidden"}"#));
        let mut raw = server.raw();
        raw.send(upgrade(&format!("{WEBSOCKET}&token=bad")));
        let refused = raw.response();
        assert_eq!((refused.status, refused.text()), (400, "bad token"));
        assert!(raw.ends());
        // Frames that come with the request wait for the decision.
        let mut raw = server.raw();
        raw.send([upgrade(&format!("{WEBSOCKET}&token=good")).into_bytes(), text("40")].concat());
        raw.expect_switch();
        assert!(raw.text().starts_with("0{"));
        assert!(raw.text().starts_with("40{"));
        Polling::open_at(server.addr, &format!("{POLLING}&token=good")).post("40");
    }
}

fn ids_of_the_users_making_are_used(driver: DriverKind) {
    let count = AtomicUsize::new(0);
    let server = TestServer::start_on(driver, 2, |builder| {
        with_echo(builder).generate_id(move |request| match request.query("id") {
            Some(id) => id.into_owned(),
            None => format!("own-{}", count.fetch_add(1, Ordering::Relaxed)),
        })
    });
    let mut polling = Polling::open_at(server.addr, &format!("{POLLING}&id=mine"));
    assert_eq!(polling.sid, "mine");
    // Taken and empty ids open nothing; one that is free again does.
    for id in ["mine", ""] {
        assert_eq!(server.raw().get(&format!("{POLLING}&id={id}")).status, 400);
    }
    polling.post("40");
    assert!(polling.poll().starts_with("40{"));
    // Found from whichever shard gets the connection.
    for _ in 0..CROWD {
        let mut raw = server.raw();
        assert_eq!(raw.post(polling.target(), r#"42["echo",1]"#).text(), "ok");
        assert_eq!(raw.get(polling.target()).text(), r#"42["echo",1]"#);
    }
    polling.post("1");
    until("the id is free", || server.raw().get(&format!("{POLLING}&id=mine")).status == 200);
    assert!(server.client().sid.starts_with("own-"));
}

fn ids_are_long_and_all_different(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 2, |_| {});
    let mut ids = std::collections::HashSet::new();
    for _ in 0..CROWD {
        let client = server.client();
        let socket = sockets.recv().expect("connected");
        assert_eq!(socket.id(), client.id);
        for id in [client.id, client.sid] {
            assert_eq!(id.len(), 20);
            assert!(ids.insert(id), "a socket's id is not its session's");
        }
    }
}

// ---- shards ----

fn requests_find_their_session_on_any_shard(driver: DriverKind) {
    let server = TestServer::start_on(driver, 2, with_echo);
    let sessions: Vec<Polling> = (0..CROWD).map(|_| Polling::connect(server.addr)).collect();
    // One connection serves them all, moving between the shards as it goes.
    let mut raw = server.raw();
    for round in 0..3 {
        for session in &sessions {
            let packet = format!(r#"42["echo",{round}]"#);
            assert_eq!(raw.post(session.target(), &packet).text(), "ok");
            assert_eq!(raw.get(session.target()).text(), packet);
        }
    }
    // Also when everything is pipelined, and when it is a WebSocket that asks.
    let requests: String = sessions
        .iter()
        .map(|session| {
            let get = format!("GET {} HTTP/1.1\r\nHost: here\r\n\r\n", session.target());
            raw::post(session.target(), r#"42["echo","all"]"#) + &get
        })
        .collect();
    raw.send(requests);
    for _ in &sessions {
        assert_eq!(raw.response().text(), "ok");
        assert_eq!(raw.response().text(), r#"42["echo","all"]"#);
    }
    for session in &sessions {
        let mut raw = server.raw();
        let request = upgrade(&session.upgrade_target());
        raw.send([request.into_bytes(), text("2probe"), text("5")].concat());
        raw.expect_switch();
        assert_eq!(raw.text(), "3probe");
        raw.send(text(r#"42["echo","moved"]"#));
        assert_eq!(raw.text(), r#"42["echo","moved"]"#);
    }
}

on_both_drivers! {
    events_of_one_thread_arrive_in_its_order,
    what_is_said_upon_something_arrives_after_it,
    sockets_and_handles_work_in_other_runtimes,
    every_wait_for_an_acknowledgement_ends,
    what_cannot_be_sent_is_an_error,
    a_union_reaches_each_socket_once_and_except_wins,
    the_sender_of_a_broadcast_is_left_out,
    sockets_are_moved_and_found_across_shards,
    a_broadcast_collects_acknowledgements_of_all_who_stay,
    allow_request_decides_at_once_or_later,
    ids_of_the_users_making_are_used,
    ids_are_long_and_all_different,
    requests_find_their_session_on_any_shard,
}
