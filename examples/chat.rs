//! A chat room with a page: rooms, who is there, who types, and coming back after a lost network.
//!
//! `cargo run --release --example chat` and a browser are all it takes. `PORT` chooses the port
//! (default 3000). The page takes the Socket.IO client from this server, which redirects to its
//! official release, or serves it from `STENTOR_CLIENT_DIR` where there is no internet.
//!
//! Read `main` first, at the end. What the events carry is told at the top of `chat/chat.js`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stentor::{Auth, ConnectError, Data, Namespace, ServeClient, Server, Socket, State};

/// Always listed, even when nobody is there.
const ROOMS: [&str; 3] = ["lobby", "music", "random"];
/// Rooms there may be at a time, those of the users included.
const ROOMS_MAX: usize = 50;
/// Messages a room remembers for those who come later.
const HISTORY_MAX: usize = 50;
const NAME_CHARS_MAX: usize = 24;
const TEXT_CHARS_MAX: usize = 2_000;

/// What a page sends when it connects, and again when it comes back.
#[derive(Deserialize)]
struct Entry {
    name: String,
    room: String,
}

#[derive(Clone, Serialize)]
struct Person {
    id: String,
    name: String,
    #[serde(skip)]
    room: String,
}

#[derive(Clone, Serialize)]
struct Message {
    from: Person,
    text: String,
    /// Milliseconds since 1970, as JavaScript counts.
    at: u64,
}

#[derive(Serialize)]
struct RoomEntry {
    name: String,
    people: usize,
}

/// All a page needs to draw itself.
#[derive(Serialize)]
struct Scene {
    you: Person,
    room: String,
    rooms: Vec<RoomEntry>,
    people: Vec<Person>,
    history: Vec<Message>,
}

/// One lock for everything, held for the length of a look-up and never while sending.
#[derive(Clone, Default)]
struct Chat(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    people: BTreeMap<String, Person>,
    history: HashMap<String, VecDeque<Message>>,
}

impl Chat {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Two people of one name are told apart by a number.
    fn free_name(&self, wanted: &str) -> String {
        let taken = |name: &str| self.people.values().any(|person| person.name == name);
        let mut name = wanted.to_owned();
        let mut number = 2;
        while taken(&name) {
            name = format!("{wanted} {number}");
            number += 1;
        }
        name
    }

    fn rooms(&self) -> Vec<RoomEntry> {
        let mut counts: BTreeMap<&str, usize> = ROOMS.iter().map(|room| (*room, 0)).collect();
        for person in self.people.values() {
            *counts.entry(&person.room).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|(name, people)| RoomEntry { name: name.to_owned(), people })
            .collect()
    }

    fn scene(&self, you: Person) -> Scene {
        let there = self.people.values().filter(|person| person.room == you.room);
        let history = self.history.get(&you.room).into_iter().flatten();
        Scene {
            room: you.room.clone(),
            rooms: self.rooms(),
            people: there.cloned().collect(),
            history: history.cloned().collect(),
            you,
        }
    }

    fn remember(&mut self, message: &Message) {
        let history = self.history.entry(message.from.room.clone()).or_default();
        if history.len() == HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(message.clone());
    }

    /// The talk of a room that its users opened ends with its last user.
    fn remove(&mut self, id: &str) -> Option<Person> {
        let gone = self.people.remove(id)?;
        let empty = !self.people.values().any(|person| person.room == gone.room);
        if empty && !ROOMS.contains(&gone.room.as_str()) {
            self.history.remove(&gone.room);
        }
        Some(gone)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.trim().chars().count())
}

fn is_room(room: &str) -> bool {
    is_name(room) && room.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Puts somebody into a room, tells those there, and describes the room.
fn arrive(socket: &Socket, chat: &Chat, name: &str, room: String) -> stentor::Result<Scene> {
    // Joined before looked at: whoever comes or goes meanwhile is told of, or seen, or both.
    socket.join(&room);
    let (scene, rooms) = {
        let mut book = chat.book();
        let you = Person { id: socket.id().to_owned(), name: book.free_name(name), room };
        book.people.insert(you.id.clone(), you.clone());
        (book.scene(you), book.rooms())
    };
    let news = json!({ "person": scene.you, "at": now_ms() });
    socket.to(&scene.room).emit("arrived", &news)?;
    socket.broadcast().emit("rooms", &rooms)?;
    Ok(scene)
}

/// Takes the socket's person out of the book and tells the room it was in.
fn depart(socket: &Socket, chat: &Chat) -> stentor::Result<Option<Person>> {
    let Some(person) = chat.book().remove(socket.id()) else { return Ok(None) };
    socket.leave(&person.room);
    socket.to(&person.room).emit("left", json!({ "person": person, "at": now_ms() }))?;
    Ok(Some(person))
}

/// The first word of every connection: who are you?
fn greet(Auth(entry): Auth<Option<Entry>>) -> Result<(), ConnectError> {
    match entry {
        Some(entry) if !is_name(&entry.name) => Err(ConnectError::new(format!(
            "Please pick a name of 1 to {NAME_CHARS_MAX} characters."
        ))),
        Some(entry) if !is_room(&entry.room) => {
            Err(ConnectError::new("A room's name has letters, digits and dashes."))
        }
        Some(_) => Ok(()),
        None => Err(ConnectError::new("Please say who you are.")),
    }
}

fn enter(
    socket: Socket,
    Auth(entry): Auth<Entry>,
    State(chat): State<Chat>,
) -> stentor::Result<()> {
    let scene = arrive(&socket, &chat, entry.name.trim(), entry.room)?;
    Ok(socket.emit("entered", &scene)?)
}

/// Answers with the new room's scene, or with an error the page shows.
fn switch(
    socket: Socket,
    Data(room): Data<String>,
    State(chat): State<Chat>,
) -> Result<Scene, String> {
    if !is_room(&room) {
        return Err("A room's name has letters, digits and dashes.".to_owned());
    }
    let rooms = chat.book().rooms();
    if rooms.len() >= ROOMS_MAX && rooms.iter().all(|entry| entry.name != room) {
        return Err("There are too many rooms already.".to_owned());
    }
    let moved = depart(&socket, &chat).and_then(|person| match person {
        Some(person) => arrive(&socket, &chat, &person.name, room).map(Some),
        None => Ok(None),
    });
    match moved {
        Ok(Some(scene)) => Ok(scene),
        Ok(None) => Err("You are not here any more.".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn typing(socket: Socket, Data(on): Data<bool>, State(chat): State<Chat>) -> stentor::Result<()> {
    let Some(person) = chat.book().people.get(socket.id()).cloned() else { return Ok(()) };
    Ok(socket.to(&person.room).emit("typing", json!({ "person": person, "on": on }))?)
}

fn leave(socket: Socket, State(chat): State<Chat>) -> stentor::Result<()> {
    if depart(&socket, &chat)?.is_some() {
        let rooms = chat.book().rooms();
        socket.broadcast().emit("rooms", &rooms)?;
    }
    Ok(())
}

fn say(socket: Socket, Data(text): Data<String>, State(chat): State<Chat>) -> Result<(), String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        return Err(format!("A message has 1 to {TEXT_CHARS_MAX} characters."));
    }
    let message = {
        let mut book = chat.book();
        let from = book.people.get(socket.id()).ok_or("You are not here any more.")?.clone();
        let message = Message { from, text: text.to_owned(), at: now_ms() };
        book.remember(&message);
        message
    };
    let room = &message.from.room;
    let sent = socket
        .emit("message", &message)
        .and_then(|()| socket.to(room).emit("message", &message))
        .and_then(|()| socket.broadcast().except(room).emit("activity", room));
    sent.map_err(|error| error.to_string())
}

fn room(ns: &mut Namespace) {
    ns.middleware(greet);
    ns.on_connect(enter);
    ns.on("switch", switch);
    ns.on("say", say);
    ns.on("typing", typing);
    ns.on_disconnecting(leave);
}

/// The page, and nothing else, is axum's.
fn page() -> Router {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(CONTENT_TYPE, kind)], text) })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("chat/index.html")))
        .route("/chat.css", file("text/css; charset=utf-8", include_str!("chat/chat.css")))
        .route("/chat.js", file("text/javascript; charset=utf-8", include_str!("chat/chat.js")))
}

#[allow(clippy::print_stdout, reason = "an example says where it listens")]
fn main() -> stentor::Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let client = match std::env::var_os("STENTOR_CLIENT_DIR") {
        Some(folder) => ServeClient::Directory(folder.into()),
        None => ServeClient::Cdn,
    };
    let bound = Server::builder()
        .state(Chat::default())
        .serve_client(client)
        .namespace("/", room)
        .fallback(page())
        .bind(format!("0.0.0.0:{port}"))?;
    println!("chatting on http://localhost:{}", bound.local_addr().port());
    bound.run()
}
