/**
 * Streams messages through an echo server and back: `deno task demo`, or `bun scripts/demo.ts`, or
 * `node scripts/demo.ts` (22.18 and later).
 *
 * For a while the client reads slowly. No message is dropped, and no queue grows without a limit: the
 * client's queue fills and its socket is paused; then the server's sends wait and the server stops
 * reading; then the client's writes wait. When the client reads fast again, all of them continue.
 *
 * `deno task demo --page` serves a page that shows the same in a browser.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { type Message, serve, type WebSocketConnection, WebSocketStream } from "../mod.ts";
import { readArguments, wholeNumber, withoutSeparator } from "./arguments.ts";

const MESSAGES = 60_000;
/** The messages that the client reads slowly, and the delay for each of them. */
const SLOW = { from: 20_000, to: 21_200, delay: 1 };

const MIN_SIZE = 2;
const MAX_SIZE = 100 * 1024;
const PHRASES = ["All ASCII, all the time. ", "Schleuse, écluse, шлюз, 水門, 🌊. "];
const NOISE = noise(2 * MAX_SIZE);

/** The values of the progress line and the summary. */
interface Demo {
  url: string;
  client: WebSocketConnection;
  server: WebSocketConnection;
  started: number;
  /** Messages that came back and were correct. */
  verified: number;
  /** Duration of the longest write, in milliseconds. */
  longestWrite: number;
}

async function main() {
  let accepted!: WebSocketConnection;
  const server = await serve({ hostname: "127.0.0.1", port: 0 }, (ws) => {
    accepted = ws;
    return ws.readable.pipeTo(ws.writable);
  });

  const stream = new WebSocketStream(server.url!);
  const { readable, writable, connection } = await stream.opened;
  const demo: Demo = {
    url: stream.url,
    client: connection,
    server: accepted,
    started: performance.now(),
    verified: 0,
    longestWrite: 0,
  };
  printTitle(demo);

  const stopProgress = showProgress(demo);
  await Promise.all([sendAll(writable, demo), receiveAll(readable, stream, demo)]);
  const { closeCode, reason } = await stream.closed;
  stopProgress();
  await server.shutdown();
  printSummary(demo, `${closeCode} ${reason}`);
}

async function sendAll(writable: WritableStream<Message>, demo: Demo) {
  const writer = writable.getWriter();
  for (let index = 0; index < MESSAGES; index++) {
    const before = performance.now();
    await writer.write(messageAt(index));
    demo.longestWrite = Math.max(demo.longestWrite, performance.now() - before);
  }
}

async function receiveAll(readable: ReadableStream<Message>, stream: WebSocketStream, demo: Demo) {
  for await (const message of readable) {
    verify(message, demo.verified);
    demo.verified++;
    if (isSlow(demo)) await sleep(SLOW.delay);
    if (demo.verified === MESSAGES) stream.close({ closeCode: 1000, reason: "all received" });
  }
  if (demo.verified < MESSAGES) {
    throw new Error(`Expected ${count(MESSAGES)} messages, received ${count(demo.verified)}`);
  }
}

function isSlow({ verified }: Demo): boolean {
  return verified >= SLOW.from && verified < SLOW.to;
}

function sleep(delay: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delay));
}

// The messages. They are made from their index alone, so that none has to be kept for the comparison.

function messageAt(index: number): Message {
  const random = hash(index);
  // Most messages are short, a few are long.
  const size = Math.floor(MIN_SIZE * (MAX_SIZE / MIN_SIZE) ** ((random % 1000) / 999) ** 1.7);
  if (index % 2 === 0) {
    const start = random % MAX_SIZE;
    return NOISE.subarray(start, start + size);
  }
  const phrase = PHRASES[(random >>> 8) % PHRASES.length];
  return `${index} ${phrase.repeat(size / phrase.length)}`;
}

function verify(message: Message, index: number) {
  const expected = messageAt(index);
  if (!isEqual(message, expected)) {
    throw new Error(
      `Message ${count(index)} is wrong: expected ${say(expected)}, received ${say(message)}`,
    );
  }
}

function isEqual(a: Message, b: Message): boolean {
  if (typeof a === "string" || typeof b === "string") return a === b;
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

function say(message: Message): string {
  return typeof message === "string"
    ? `${JSON.stringify(message.slice(0, 40))} of ${count(message.length)} characters`
    : `[${message.subarray(0, 12)}] of ${count(message.length)} bytes`;
}

function hash(value: number): number {
  let bits = Math.imul(value + 1, 0x9e3779b1);
  bits = Math.imul(bits ^ (bits >>> 15), 0x85ebca6b);
  return (bits ^ (bits >>> 13)) >>> 0;
}

function noise(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => hash(at));
}

// The output.

const terminal = process.stdout.isTTY === true;
const colors = terminal && !process.env.NO_COLOR;
const bold = (text: string) => colors ? `\x1b[1m${text}\x1b[22m` : text;
const dim = (text: string) => colors ? `\x1b[2m${text}\x1b[22m` : text;
const green = (text: string) => colors ? `\x1b[32m${text}\x1b[39m` : text;
const yellow = (text: string) => colors ? `\x1b[33m${text}\x1b[39m` : text;

function printTitle({ url }: Demo) {
  console.log(`\n  ${bold("Sluice")}  ${dim(`${runtimeName()} · echo at ${url}`)}\n`);
}

function runtimeName(): string {
  const { deno, bun, node } = process.versions;
  return deno ? `Deno ${deno}` : bun ? `Bun ${bun}` : `Node ${node}`;
}

/** Rewrites one line of the terminal until the returned function is called. */
function showProgress(demo: Demo): () => void {
  if (!terminal) return () => {};
  let before = { verified: 0, at: demo.started };
  const timer = setInterval(() => {
    const now = { verified: demo.verified, at: performance.now() };
    const rate = (now.verified - before.verified) / (now.at - before.at) * 1000;
    before = now;
    process.stdout.write(`\r${progressLine(demo, rate)}\x1b[K`);
  }, 100);
  return () => {
    clearInterval(timer);
    process.stdout.write("\r\x1b[K");
  };
}

function progressLine(demo: Demo, rate: number): string {
  const { client, server, verified } = demo;
  const messages = `${count(verified).padStart(7)} messages`;
  const speed = `${count(rate).padStart(7)}/s`;
  const queue = `queue ${size(client.stats.queued).padStart(9)}`;
  const paused = client.stats.paused || server.stats.paused;
  const state = paused ? yellow("paused") : "flowing";
  const reader = isSlow(demo) ? yellow(", slow reader") : "";
  const line = `${messages} ${speed}  ${queue}  ${state}${reader}`;
  // A line that wraps could not be rewritten.
  return process.stdout.columns < 80 ? `  ${line}` : `  ${bar(verified / MESSAGES)} ${line}`;
}

function bar(done: number): string {
  const filled = Math.round(done * 12);
  return green("━".repeat(filled)) + dim("━".repeat(12 - filled));
}

function printSummary(demo: Demo, close: string) {
  const [client, server] = [demo.client.stats, demo.server.stats];
  const seconds = (performance.now() - demo.started) / 1000;
  const row = (label: string, a: string, b: string) =>
    console.log(`  ${label.padEnd(18)}${a.padStart(14)}${b.padStart(14)}`);

  console.log(`  ${green("✓")} ${count(demo.verified)} messages echoed, each verified, in order`);
  console.log(`  ${green("✓")} closed cleanly: ${close}\n`);
  console.log(dim(`  ${" ".repeat(18)}${"client".padStart(14)}${"server".padStart(14)}`));
  row("messages received", count(client.messagesReceived), count(server.messagesReceived));
  row("bytes received", size(client.bytesReceived), size(server.bytesReceived));
  row("bytes sent", size(client.bytesSent), size(server.bytesSent));
  row("longest queue", size(client.peakQueued), size(server.peakQueued));
  row("reading paused", times(client.pauses), times(server.pauses));

  const slow = count(SLOW.to - SLOW.from);
  const rate = `${count(demo.verified / seconds)} messages/s`;
  const throughput = `${size(client.bytesReceived / seconds)}/s each way`;
  console.log(`\n  ${seconds.toFixed(1)} s, ${rate}, ${throughput}`);
  console.log(
    dim(`  While the client read ${slow} messages slowly, its writes had to wait:`),
  );
  console.log(dim(`  the longest took ${count(demo.longestWrite)} ms.\n`));
}

function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

function times(value: number): string {
  return `${count(value)} ×`;
}

function size(bytes: number): string {
  return bytes < 1024 ** 2
    ? `${(bytes / 1024).toFixed(1)} KiB`
    : `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

const USAGE = `deno task demo [--page [--port N]]

  --page      serve a page that shows the flow in a browser, until Ctrl+C
  --port N    the port of the page (default: 8080)`;

const { page, port } = await readArguments(USAGE, () => {
  const { values } = parseArgs({
    args: withoutSeparator(process.argv.slice(2)),
    options: { page: { type: "boolean" }, port: { type: "string" } },
  });
  return { page: values.page, port: wholeNumber("--port", values.port, 0) ?? 8080 };
});
try {
  if (page) {
    // A development dependency bundles the page.
    const { servePage } = await import("./demo/page_server.ts");
    console.log(`Open ${(await servePage(port)).url} in a browser. Press Ctrl+C to stop.`);
  } else await main();
} catch (error) {
  console.error(`\n  The demo failed: ${error instanceof Error ? error.message : error}`);
  process.exit(1);
}
