// The page of the chat example. The server is `examples/chat.rs`; its events are:
//
//   entered {you, room, rooms, people, history}   after connecting, and as the answer to `switch`
//   message {from, text, at}                      somebody said something in this room
//   arrived / left {person, at}                   somebody came to or left this room
//   typing {person, on}                           somebody types, or stopped
//   rooms [{name, people}]                        who is where, in numbers
//   activity room                                 something was said in another room

const $ = (id) => document.getElementById(id);
const TYPING_MS = 3_000;
const GROUP_MS = 5 * 60_000;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const state = {
  socket: null,
  you: null,
  // Every id this page has had: a reconnection brings a new one, the old messages stay ours.
  selves: new Set(),
  room: "lobby",
  rooms: [],
  unread: new Set(),
  missed: 0,
  people: new Map(),
  typing: new Map(),
  lastMessage: null,
};

// ---- small tools

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function avatar(name) {
  let hue = 7;
  for (const char of name) hue = (hue * 31 + char.codePointAt(0)) % 360;
  const words = name.trim().split(/\s+/);
  const initials = (words.length > 1 ? [words[0], words.at(-1)] : [words[0]])
    .map((word) => [...word][0])
    .join("");
  const node = element("span", { class: "avatar", "aria-hidden": "true" }, initials.toUpperCase());
  node.style.setProperty("--hue", hue);
  return node;
}

/** Text with its web addresses as links; never HTML from a message. */
function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]+)/).map((part, i) =>
    i % 2 ? element("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part) : part,
  );
}

const remember = (key, value) => {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch {
    // A browser that keeps nothing still chats.
  }
  return null;
};

// ---- the list of messages

const scroller = $("scroller");
const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;

function toEnd() {
  scroller.scrollTop = scroller.scrollHeight;
  $("latest").hidden = true;
}

/** Appends without moving a reader who has scrolled up. */
function append(node, { follow = false } = {}) {
  const stay = !follow && !atEnd();
  $("messages").querySelector(".empty")?.remove();
  $("messages").append(node);
  if (!stay) toEnd();
  else if (node.classList.contains("message")) $("latest").hidden = false;
}

function showMessage({ from, text, at }, fresh) {
  const mine = state.selves.has(from.id);
  const last = state.lastMessage;
  const again = last?.from.name === from.name && at - last.at < GROUP_MS;
  state.lastMessage = { from, at };
  const when = new Date(at);
  const classes = ["message", mine && "mine", again && "again", fresh && "fresh"];
  const time = { datetime: when.toISOString(), title: when.toLocaleString() };
  append(
    element(
      "li",
      { class: classes.filter(Boolean).join(" "), "data-from": from.name },
      avatar(from.name),
      element("div", { class: "head" },
        element("strong", {}, from.name),
        element("time", time, clock.format(when))),
      element("div", { class: "body", title: clock.format(when) }, ...linked(text)),
    ),
    { follow: mine && fresh },
  );
}

function showNotice(text, at) {
  state.lastMessage = null;
  append(element("li", { class: "notice" }, `${text} · ${clock.format(new Date(at))}`));
}

// ---- rooms, people, who is typing

function showRooms() {
  const entries = state.rooms.map(({ name, people }) => {
    const button = element(
      "button",
      {
        type: "button",
        "aria-current": name === state.room && "true",
        class: state.unread.has(name) && "unread",
        "data-room": name,
      },
      element("span", { class: "room" }, name),
      element("span", { class: "dot", role: "img", "aria-label": "new messages" }),
      element("span", { class: "count", "aria-label": `${people} here` }, people ? `${people}` : ""),
    );
    button.addEventListener("click", () => enterRoom(name));
    return element("li", {}, button);
  });
  // Redrawing must not take the focus from who walks through the list with the keyboard.
  const focused = document.activeElement?.dataset?.room;
  $("rooms").replaceChildren(...entries);
  if (focused) $("rooms").querySelector(`[data-room="${CSS.escape(focused)}"]`)?.focus();
}

function showPeople() {
  const order = [...state.people.values()].sort((a, b) => a.name.localeCompare(b.name));
  $("people").replaceChildren(
    ...order.map((person) =>
      element("li", {},
        avatar(person.name),
        element("span", { class: "name" }, person.name),
        person.id === state.you.id ? element("span", { class: "you" }, "you") : "")),
  );
  const count = order.length;
  $("people-count").textContent = count;
  $("room-count").textContent = count === 1 ? "only you" : `${count} people`;
}

function setTyping(person, on) {
  clearTimeout(state.typing.get(person.id)?.timer);
  state.typing.delete(person.id);
  if (on) {
    const timer = setTimeout(() => setTyping(person, false), 2 * TYPING_MS);
    state.typing.set(person.id, { name: person.name, timer });
  }
  const names = [...state.typing.values()].map(({ name }) => name);
  const text =
    names.length === 0 ? "" :
    names.length === 1 ? `${names[0]} is typing` :
    names.length === 2 ? `${names[0]} and ${names[1]} are typing` :
    "Several people are typing";
  const dots = element("span", { class: "dots", "aria-hidden": "true" },
    element("i"), element("i"), element("i"));
  $("typing").replaceChildren(...(text ? [dots, text] : []));
}

function showTitle() {
  const missed = state.missed ? `(${state.missed}) ` : "";
  document.title = `${missed}#${state.room} · Stentor chat`;
}

// ---- entering

function entered({ you, room, rooms, people, history }) {
  Object.assign(state, { you, room, rooms, lastMessage: null });
  state.selves.add(you.id);
  state.people = new Map(people.map((person) => [person.id, person]));
  for (const { timer } of state.typing.values()) clearTimeout(timer);
  state.typing.clear();
  setTyping(you, false);
  state.unread.delete(room);
  state.socket.auth.room = room;
  remember("room", room);
  $("gate").hidden = true;
  $("app").hidden = false;
  $("room-name").textContent = room;
  $("text").placeholder = `Message #${room}`;
  $("me").replaceChildren(avatar(you.name), element("span", { class: "name" }, you.name));
  $("messages").replaceChildren(
    ...(history.length ? [] : [element("li", { class: "empty" }, "Nothing said yet. Go first.")]),
  );
  for (const message of history) showMessage(message, false);
  showRooms();
  showPeople();
  showTitle();
  toEnd();
  closePanels();
  if (matchMedia("(hover: hover)").matches) $("text").focus();
}

function enterRoom(name) {
  if (name === state.room) return closePanels();
  stopTyping();
  state.socket.emit("switch", name, (answer) => {
    if (answer.error) showNotice(answer.error, Date.now());
    else entered(answer);
  });
}

function connect(name, room) {
  const socket = io({ auth: { name, room } });
  state.socket = socket;

  socket.on("entered", (scene) => {
    $("banner").hidden = true;
    setOnline(true);
    entered(scene);
  });
  socket.on("message", (message) => {
    setTyping(message.from, false);
    showMessage(message, true);
    if (document.hidden) {
      state.missed++;
      showTitle();
    }
  });
  socket.on("arrived", ({ person, at }) => {
    state.people.set(person.id, person);
    showPeople();
    showNotice(`${person.name} came in`, at);
  });
  socket.on("left", ({ person, at }) => {
    state.people.delete(person.id);
    setTyping(person, false);
    showPeople();
    showNotice(`${person.name} left`, at);
  });
  socket.on("typing", ({ person, on }) => setTyping(person, on));
  socket.on("rooms", (rooms) => {
    state.rooms = rooms;
    showRooms();
  });
  socket.on("activity", (room) => {
    if (room === state.room) return;
    state.unread.add(room);
    showRooms();
  });

  socket.on("disconnect", (reason) => {
    setOnline(false);
    banner(reason === "io server disconnect"
      ? "The server closed the connection. Reload to come back."
      : "Connection lost. Reconnecting…");
  });
  socket.on("connect_error", (error) => {
    if (socket.active) {
      // Nobody answered; the client tries again by itself.
      if (state.you) banner("The server does not answer. Trying again…");
      else refuse("The server does not answer. Trying again…");
    } else {
      refuse(error.message);
      $("gate").hidden = false;
      $("app").hidden = true;
    }
  });
}

function refuse(text) {
  $("gate-error").textContent = text;
  $("gate-error").hidden = false;
  $("enter").disabled = state.socket?.active ?? false;
}

function banner(text) {
  $("banner-text").textContent = text;
  $("banner").hidden = false;
}

function setOnline(online) {
  $("text").disabled = !online;
  $("send").disabled = !online || !$("text").value.trim();
}

$("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  $("gate-error").hidden = true;
  if (typeof io === "undefined") return refuse("The Socket.IO client could not be loaded.");
  state.socket?.disconnect();
  remember("name", name);
  connect(name, $("gate-room").value.trim());
});

// ---- saying something

let typingSince = 0;

function startTyping() {
  // Said again now and then, so that others can forget who went silent.
  if (Date.now() - typingSince < TYPING_MS) return;
  typingSince = Date.now();
  state.socket.volatile.emit("typing", true);
}

function stopTyping() {
  if (typingSince) state.socket.emit("typing", false);
  typingSince = 0;
}

$("text").addEventListener("input", () => {
  const empty = !$("text").value.trim();
  $("send").disabled = empty || !state.socket.connected;
  if (empty) stopTyping();
  else startTyping();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("say-form").requestSubmit();
  }
});

$("say-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !state.socket.connected) return;
  state.socket.emit("say", text, (answer) => {
    if (answer?.error) showNotice(answer.error, Date.now());
  });
  typingSince = 0;
  $("text").value = "";
  $("send").disabled = true;
  $("text").focus();
});

// ---- panels, theme, the rest

function openPanel(panel, button) {
  closePanels();
  $(panel).classList.add("open");
  $(button).setAttribute("aria-expanded", "true");
  $("shade").hidden = false;
}

function closePanels() {
  for (const panel of document.querySelectorAll(".panel")) panel.classList.remove("open");
  for (const button of ["show-rooms", "show-people"]) $(button).setAttribute("aria-expanded", "false");
  $("shade").hidden = true;
}

$("show-rooms").addEventListener("click", () => openPanel("rooms-panel", "show-rooms"));
$("show-people").addEventListener("click", () => openPanel("people-panel", "show-people"));
$("shade").addEventListener("click", closePanels);
document.addEventListener("keydown", (event) => event.key === "Escape" && closePanels());

$("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("new-room").value.trim().toLowerCase();
  $("new-room").value = "";
  if (name) enterRoom(name);
});

$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  remember("theme", dark ? "light" : "dark");
});

$("latest").addEventListener("click", toEnd);
scroller.addEventListener("scroll", () => atEnd() && ($("latest").hidden = true));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) state.missed = 0;
  if (state.you) showTitle();
});

$("name").value = remember("name") ?? "";
$("gate-room").value = remember("room") ?? "lobby";
