// The wire, byte by byte, without a client library:
//
//     node protocol.mjs URL [--options-url URL] [--reference] [--only TEXT] [--width N]
//
// URL is a server that keeps the contract at the top of `clients.mjs`. `--options-url` names a second one
// with every option away from its default:
//
//   path /rt without trailing slash, transports polling only, upgrades not allowed, cookie named `io`,
//   CORS for the origin http://ok.example with credentials, HTTP compression from 1024 bytes,
//   max_http_buffer_size 10 000; namespace `/` with the event `echo`.
//
// `--reference` leaves out the cases where stentor deliberately differs from the reference server, so
// that all others can be checked against it: each `differs` says how.

import process from "node:process";
import engine from "./engine.cases.mjs";
import options from "./options.cases.mjs";
import packets from "./packets.cases.mjs";
import { Suite, args } from "./runner.mjs";
import upgrade from "./upgrade.cases.mjs";
import { target } from "./wire.mjs";

const { words, options: given } = args("protocol.mjs URL [--options-url URL]", 1);
const reference = process.argv.includes("--reference");
const suite = new Suite({ only: given.only });
target.url = words[0];

const it = (name, body) => suite.add(name, body);
/** A case where the reference server behaves otherwise, and why we do not. */
const differs = (name, _why, body) => {
  if (!reference) suite.add(name, body);
};

engine({ it, differs });
upgrade({ it, differs });
packets({ it, differs, reference });
if (given["options-url"]) options({ it, base: given["options-url"] });

process.exit(await suite.run({ width: Number(given.width ?? 8) }));
