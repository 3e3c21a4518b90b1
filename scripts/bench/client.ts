/**
 * The measured process of the client side: `client.ts PEER PORT CONNECTIONS IN_FLIGHT TYPE SIZE`.
 *
 * It opens its connections, checks that messages come back unchanged, and prints a line. Then it answers
 * each line of input with a number. For a number of messages, the answer is how many made the round trip,
 * with several in flight on each connection; for an empty line, the used CPU time in microseconds.
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import { createInterface } from "node:readline";
import { payloadOf } from "./frames.ts";
import { loadLibrary } from "./library.ts";

type Message = string | Uint8Array<ArrayBuffer>;

/** The work of a connection. */
interface Work {
  messages: number;
  inFlight: number;
  next(): Message;
  /** Called with each received message, in the form in which the client delivers it. */
  came(data: unknown): void;
}

/** A connection of a client library. */
interface Client {
  run(work: Work): Promise<void>;
  close(): void;
}

/** The client libraries. Only the measured library is loaded. */
const PEERS: Record<string, (url: string) => Promise<Client>> = {
  loop: openLoop,
  streams: openStreams,
  ws: openWs,
  bufferutil: openWs,
  undici: async (url) => openEvents(new (await import("undici")).WebSocket(url)),
  native: (url) => openEvents(new WebSocket(url)),
};

async function connect(url: string) {
  const { connect } = await loadLibrary();
  return await connect(url, { compression: false, pingInterval: 0 });
}

/** Our client with `send()` and `for await`. */
async function openLoop(url: string): Promise<Client> {
  const ws = await connect(url);
  return {
    async run({ messages, inFlight, next, came }) {
      for (let sent = 0; sent < inFlight; sent++) ws.send(next());
      let toSend = messages - inFlight;
      let missing = messages;
      for await (const message of ws) {
        came(message);
        if (--missing === 0) return;
        if (toSend-- > 0) await ws.send(next());
      }
      throw new Error("The server has ended the connection");
    },
    close: () => ws.terminate(),
  };
}

/** Our client with a reader of `readable` and a writer of `writable`. */
async function openStreams(url: string): Promise<Client> {
  const ws = await connect(url);
  const reader = ws.readable.getReader();
  const writer = ws.writable.getWriter();
  return {
    async run({ messages, inFlight, next, came }) {
      for (let sent = 0; sent < inFlight; sent++) writer.write(next());
      let toSend = messages - inFlight;
      for (let missing = messages; missing > 0; missing--) {
        came((await reader.read()).value);
        if (toSend-- > 0) writer.write(next());
      }
    },
    close: () => ws.terminate(),
  };
}

/** ws delivers text as bytes by default, which is faster than strings. */
async function openWs(url: string): Promise<Client> {
  const { WebSocket } = await import("ws");
  const ws = new WebSocket(url, { perMessageDeflate: false });
  await new Promise((resolve, reject) => ws.on("open", resolve).on("error", reject));
  let onMessage = (_data: unknown) => {};
  ws.on("message", (data) => onMessage(data));
  return callingBack(ws, (listener) => onMessage = listener);
}

/** The parts of the standard's class that this file uses. */
interface EventSocket {
  binaryType: string;
  onopen: unknown;
  onerror: unknown;
  onmessage: unknown;
  send(message: Message): void;
  close(): void;
}

async function openEvents(ws: EventSocket): Promise<Client> {
  ws.binaryType = "arraybuffer";
  await new Promise<void>((resolve, reject) => {
    ws.onopen = () => resolve();
    ws.onerror = () => reject(new Error("The connection failed"));
  });
  let onMessage = (_data: unknown) => {};
  ws.onmessage = (event: { data: unknown }) => onMessage(event.data);
  return callingBack(ws, (listener) => onMessage = listener);
}

function callingBack(
  ws: Pick<EventSocket, "send" | "close">,
  listen: (listener: (data: unknown) => void) => void,
): Client {
  return {
    run: ({ messages, inFlight, next, came }) =>
      new Promise((resolve) => {
        let toSend = messages - inFlight;
        let missing = messages;
        listen((data) => {
          came(data);
          if (toSend-- > 0) ws.send(next());
          if (--missing === 0) resolve();
        });
        for (let sent = 0; sent < inFlight; sent++) ws.send(next());
      }),
    close: () => ws.close(),
  };
}

const [, , peer, port, connections, inFlightText, type, sizeText] = process.argv;
const [inFlight, size] = [Number(inFlightText), Number(sizeText)];
const message = messageOf(0);

function messageOf(seed: number): Message {
  const payload = payloadOf(size, seed);
  return type === "text" ? new TextDecoder().decode(payload) : payload as Message;
}

/** Connects to a server that echoes the messages, and compares them. */
async function verify() {
  const client = await PEERS[peer](`ws://127.0.0.1:${port}/verify`);
  let [sent, received] = [0, 0];
  const came = (data: unknown) => {
    const expected = messageOf(received++);
    const equal = typeof expected === "string"
      ? String(data) === expected
      : Buffer.compare(Buffer.from(data as Uint8Array<ArrayBuffer>), expected) === 0;
    if (!equal) throw new Error("The messages did not come back unchanged");
  };
  await client.run({ messages: 2 * inFlight, inFlight, next: () => messageOf(sent++), came });
  client.close();
}

async function run(messages: number): Promise<number> {
  const each = inFlight * Math.ceil(messages / clients.length / inFlight);
  const work = { messages: each, inFlight, next: () => message, came: () => {} };
  await Promise.all(clients.map((client) => client.run(work)));
  return each * clients.length;
}

function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

await verify();
const clients: Client[] = [];
while (clients.length < Number(connections)) {
  clients.push(await PEERS[peer](`ws://127.0.0.1:${port}/`));
}
console.log(clients.length);
const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => console.log(line === "" ? cpuTime() : await run(Number(line))));
lines.on("close", () => process.exit());
