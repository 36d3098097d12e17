// The chat page in a real browser:
//
//     node chat.mjs URL OUTDIR
//
// Headless Chromium opens two tabs (of two people), lets them talk, and keeps screenshots in OUTDIR.
// The browser is `$CHROMIUM`, or `chromium`, `chromium-browser` or `google-chrome` on the PATH.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { chromium } from "playwright-core";
import { Suite, args, until } from "./runner.mjs";

const { words, options } = args("chat.mjs URL OUTDIR", 2);
const [url, out] = words;

function browserPath() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const folders = (process.env.PATH ?? "").split(":");
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    for (const folder of folders) {
      const candidate = path.join(folder, name);
      if (existsSync(candidate)) return candidate;
    }
  }
  throw new Error("no Chromium on the PATH");
}

await mkdir(out, { recursive: true });
const profile = await mkdtemp(path.join(tmpdir(), "stentor-chromium-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: browserPath(),
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // A tab in the background must go on polling and animating like one in front.
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
  ],
  viewport: { width: 1200, height: 760 },
  colorScheme: "light",
});

// Remembers every WebSocket of a page, so that a test can cut it.
await context.addInitScript(() => {
  const links = (globalThis.links = []);
  globalThis.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given);
      links.push(this);
    }
  };
});

const problems = [];

/** A tab in which `name` has entered `room`. */
async function enter(name, room = "lobby") {
  const page = await context.newPage();
  page.setDefaultTimeout(8_000);
  page.on("pageerror", (error) => problems.push(`${name}: ${error}`));
  page.on("console", (line) => {
    // A server that went away is part of the test.
    const expected = /ERR_INTERNET_DISCONNECTED|WebSocket connection/.test(line.text());
    if (line.type() === "error" && !expected) problems.push(`${name}: ${line.text()}`);
  });
  await page.goto(url);
  await page.fill("#name", name);
  await page.fill("#gate-room", room);
  await page.click("#enter");
  await page.waitForSelector("#app:not([hidden])");
  // On WebSocket, so that closing the tab is known to the server at once.
  await page.waitForFunction("links.at(-1)?.readyState === WebSocket.OPEN");
  return page;
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

const bodies = (page) => page.locator(".message .body").allTextContents();
const people = (page) => page.locator("#people .name").allTextContents();
const shoot = (page, name) => page.screenshot({ path: path.join(out, `${name}.png`) });
const hears = (page, text) =>
  until(`hearing ${text}`, async () => (await bodies(page)).includes(text));

const suite = new Suite({ only: options.only });
let ada;
let linus;

suite.add("the gate greets, and two people enter", async () => {
  const gate = await context.newPage();
  await gate.goto(url);
  await gate.waitForSelector("#enter");
  await shoot(gate, "chat-gate");
  await gate.close();
  ada = await enter("Ada Lovelace");
  linus = await enter("Linus");
  await until("both listed", async () => (await people(ada)).length === 2);
  assert.deepEqual(await people(ada), ["Ada Lovelace", "Linus"]);
  assert.deepEqual(await people(linus), ["Ada Lovelace", "Linus"]);
  await ada.waitForSelector('.notice:has-text("Linus came in")');
});

suite.add("messages go both ways, in order, with who and when", async () => {
  await say(ada, "Hello, who is there?");
  await hears(linus, "Hello, who is there?");
  await say(linus, "Linus. I brought a kernel.");
  await say(linus, "It has rings in it: https://kernel.dk/io_uring.pdf");
  await hears(ada, "It has rings in it: https://kernel.dk/io_uring.pdf");
  await say(ada, "<b>not bold</b> \u{1F600} привет");
  // The speaker's own copy comes from the server too, and may come after the other's.
  await hears(linus, "<b>not bold</b> \u{1F600} привет");
  await hears(ada, "<b>not bold</b> \u{1F600} привет");
  const want = [
    "Hello, who is there?",
    "Linus. I brought a kernel.",
    "It has rings in it: https://kernel.dk/io_uring.pdf",
    "<b>not bold</b> \u{1F600} привет",
  ];
  assert.deepEqual(await bodies(ada), want);
  assert.deepEqual(await bodies(linus), want);
  const first = linus.locator(".message").first();
  assert.equal(await first.getAttribute("data-from"), "Ada Lovelace");
  assert.match(await first.locator("time").getAttribute("datetime"), /^\d{4}-\d\d-\d\dT/);
  assert.equal(await linus.locator('.message a[href="https://kernel.dk/io_uring.pdf"]').count(), 1);
});

suite.add("somebody typing is seen, and seen to stop", async () => {
  await linus.locator("#text").pressSequentially("I am wri");
  await ada.waitForSelector('#typing:has-text("Linus is typing")');
  await shoot(ada, "chat-desktop");
  await linus.fill("#text", "");
  await ada.waitForSelector('#typing:not(:has-text("typing"))');
});

suite.add("rooms keep their talk apart and show where something happens", async () => {
  await linus.click('#rooms button[data-room="music"]');
  await linus.waitForSelector('#room-name:text-is("music")');
  await until("Linus gone from the list", async () => (await people(ada)).length === 1);
  await ada.waitForSelector('.notice:has-text("Linus left")');
  await say(linus, "Only for music");
  await hears(linus, "Only for music");
  await ada.waitForSelector('#rooms button.unread[data-room="music"]');
  assert(!(await bodies(ada)).includes("Only for music"));
  await ada.click('#rooms button[data-room="music"]');
  await hears(ada, "Only for music");
  assert.equal(await ada.locator("#rooms button.unread").count(), 0);
  assert.deepEqual(await people(linus), ["Ada Lovelace", "Linus"]);

  await ada.fill("#new-room", "attic");
  await ada.press("#new-room", "Enter");
  await ada.waitForSelector('#room-name:text-is("attic")');
  await linus.waitForSelector('#rooms button[data-room="attic"]');
});

suite.add("a tab that lost its network says so and comes back by itself", async () => {
  // Offline hinders what is opened next; what is open has to be cut.
  await context.setOffline(true);
  await linus.evaluate("links.at(-1).close()");
  await linus.waitForSelector("#banner:not([hidden])");
  assert.equal(await linus.isDisabled("#text"), true);
  await shoot(linus, "chat-offline");
  await context.setOffline(false);
  await linus.waitForSelector("#banner[hidden]", { state: "attached", timeout: 15_000 });
  await say(linus, "Still here");
  await hears(linus, "Still here");
});

suite.add("an empty name is refused, a taken one is told apart", async () => {
  const page = await context.newPage();
  await page.goto(url);
  await page.fill("#name", "   ");
  await page.click("#enter");
  await page.waitForSelector("#gate-error:not([hidden])");
  await page.close();
  const twin = await enter("Linus", "music");
  await until("told apart", async () => (await people(twin)).includes("Linus 2"));
  await twin.close();
  await linus.waitForSelector('.notice:has-text("Linus 2 left")');
});

suite.add("dark and narrow", async () => {
  await ada.click('#rooms button[data-room="lobby"]');
  await ada.waitForSelector('#room-name:text-is("lobby")');
  await ada.click("#theme");
  assert.equal(await ada.getAttribute("html", "data-theme"), "dark");
  await shoot(ada, "chat-dark");
  await ada.setViewportSize({ width: 390, height: 780 });
  await ada.waitForTimeout(300);
  await shoot(ada, "chat-narrow");
  await ada.click("#show-rooms");
  await ada.waitForTimeout(300);
  await shoot(ada, "chat-narrow-rooms");
  const wide = await ada.evaluate("document.documentElement.scrollWidth");
  assert(wide <= 390, `the page is ${wide} pixels wide`);
});

suite.add("the pages reported no errors", async () => {
  assert.deepEqual(problems, []);
});

// One after the other: the cases are acts of one play.
const code = await suite.run({ width: 1 });
await context.close();
await rm(profile, { recursive: true, force: true });
process.exit(code);
