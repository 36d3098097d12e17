// A test runner of one page: cases are added, run a few at a time, and reported in order as TAP.
// It knows nothing of Socket.IO; `clients.mjs`, `protocol.mjs` and `chat.mjs` use it.

import process from "node:process";

const CASE_DEADLINE_MS = 40_000;

export class Suite {
  #cases = [];

  constructor({ only } = {}) {
    this.only = only;
  }

  /** Adds a case. `body` gets a scope whose `defer(fn)` registers cleanup, run last-in first-out. */
  add(name, body) {
    if (!this.only || name.includes(this.only)) this.#cases.push({ name, body });
  }

  /** Runs all cases, at most `width` at a time, and returns the process exit code. */
  async run({ width = 4 } = {}) {
    const started = performance.now();
    const results = this.#cases.map(() => undefined);
    let next = 0;
    let printed = 0;
    let failed = 0;
    const report = () => {
      for (; printed < results.length && results[printed]; printed++) {
        const { name } = this.#cases[printed];
        const { error, ms } = results[printed];
        console.log(`${error ? "not ok" : "ok"} ${printed + 1} - ${name} (${ms} ms)`);
        if (error) {
          failed++;
          const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
          console.log(text.replace(/^/gm, "    "));
        }
      }
    };
    const worker = async () => {
      while (next < this.#cases.length) {
        const index = next++;
        results[index] = await runCase(this.#cases[index].body);
        report();
      }
    };
    process.on("uncaughtException", (error) => {
      console.log(`Bail out! ${error.stack ?? error}`);
      process.exit(1);
    });
    console.log(`1..${this.#cases.length}`);
    await Promise.all(Array.from({ length: width }, worker));
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`# ${results.length - failed} passed, ${failed} failed in ${seconds} s`);
    // A filter that matches nothing must not look like success.
    return failed === 0 && results.length > 0 ? 0 : 1;
  }
}

async function runCase(body) {
  const started = performance.now();
  const cleanup = [];
  const scope = { defer: (fn) => cleanup.push(fn) };
  let error;
  let timer;
  try {
    const deadline = new Promise((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`still running after ${CASE_DEADLINE_MS} ms`)),
        CASE_DEADLINE_MS,
      );
    });
    await Promise.race([body(scope), deadline]);
  } catch (thrown) {
    error = thrown ?? new Error("failed without a reason");
  } finally {
    clearTimeout(timer);
  }
  for (const fn of cleanup.reverse()) {
    try {
      await fn();
    } catch (thrown) {
      error ??= thrown;
    }
  }
  return { error, ms: Math.round(performance.now() - started) };
}

/** Ends `promise` with a named error if it has not settled within `ms`. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms);
  });
  const first = Promise.race([promise, late]).finally(() => clearTimeout(timer));
  // A case that fails elsewhere never comes to await this one; that is no crash of the runner.
  first.catch(() => {});
  return first;
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Polls `test` until it is truthy; for states that no event announces. */
export async function until(what, test, ms = 10_000) {
  const end = performance.now() + ms;
  for (;;) {
    const value = await test();
    if (value) return value;
    if (performance.now() > end) throw new Error(`${what}: not so within ${ms} ms`);
    await sleep(10);
  }
}

/** Positional words and `--name value` options of the command line. */
export function args(usage, min) {
  const words = [];
  const options = {};
  const given = process.argv.slice(2);
  while (given.length) {
    const word = given.shift();
    if (word.startsWith("--")) options[word.slice(2)] = given.shift();
    else words.push(word);
  }
  if (words.length < min) {
    console.error(`usage: ${usage}`);
    process.exit(2);
  }
  return { words, options };
}
