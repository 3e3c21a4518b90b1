/** Fuzzes connections over lines in memory and over streams, and a server that listens. */
import assert from "node:assert/strict";
import { connect as connectSocket, type Socket } from "node:net";
import { accept, connect, serve, type Server, type WebSocketConnection } from "../../mod.ts";
import { assemble } from "../../lib/streams.ts";
import { toStreams } from "../../lib/transport.ts";
import { type MemoryTransport, transportPair } from "../../lib/testing.ts";
import { acceptToken, type Role } from "../../lib/core/mod.ts";
import { compressedInput } from "./deflate.ts";
import { frameInput } from "./frames.ts";
import { latin1, requestInput, responseInput } from "./heads.ts";
import { chop, mutateBytes, type Random } from "./random.ts";
import { outcomeOf, soon, type Target } from "./target.ts";

const INBOX = 20_000;
const MAX_MESSAGE = 20_000;
/** Limits for the connections of a target, which end with their peer and wait for no timer. */
const LIMITS = {
  maxMessageSize: MAX_MESSAGE,
  readableStrategy: { highWaterMark: INBOX },
  pingInterval: 0,
  openTimeout: 20_000,
  closeTimeout: 20_000,
};
/** The same with compression. Messages may be so long that some are inflated outside the event loop. */
const COMPRESSED = { ...LIMITS, maxMessageSize: 400_000, compression: true };
/** The close codes with which a connection may end. */
const CLOSE_CODES: ReadonlySet<number> = new Set([1002, 1005, 1006, 1007, 1009]);

/** The other end of the line: sends bytes, ignores data, and leaves. */
function peerOf(transport: MemoryTransport, onData: (chunk: Uint8Array) => void): void {
  transport.handle({ data: onData, drain() {}, end: () => transport.end(), close() {} });
}

/** Ends the peer's side of the line. */
function leave(random: Random, transport: MemoryTransport): void {
  const how = random.below(4);
  if (how === 0) transport.fail(new Error("The line is cut"));
  else if (how === 1) transport.destroy();
  else transport.end();
}

const EXTENSIONS = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/** Makes a request that the server accepts. */
function requestWith(fields = ""): string {
  return "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
    `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n${fields}\r\n`;
}

function text(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}

/** Opens a connection with a valid handshake. */
async function opened(
  role: Role,
  options: typeof LIMITS = LIMITS,
  fields = "",
): Promise<[WebSocketConnection, MemoryTransport]> {
  const [near, far] = transportPair();
  if (role === "server") {
    peerOf(far, () => {});
    far.write([latin1(requestWith(fields))]);
    return [await accept(near, options), far];
  }
  peerOf(far, (chunk) => {
    const key = /Sec-WebSocket-Key: (\S+)/.exec(text(chunk))?.[1];
    if (key !== undefined) far.write([responseTo(key, fields)]);
  });
  return [await connect("ws://a/", { ...options, transport: near }), far];
}

function responseTo(key: string, fields: string): Uint8Array {
  return latin1(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${acceptToken(key)}\r\n${fields}\r\n`,
  );
}

/** Reads a connection to its end, in one of several ways. */
async function readAll(
  random: Random,
  ws: WebSocketConnection,
  { maxMessageSize } = LIMITS,
): Promise<void> {
  const way = random.below(5);
  const check = (message: string | Uint8Array) => checkMessage(message, maxMessageSize);
  try {
    if (way === 0) { for await (const message of ws) check(message); }
    else if (way === 1) { for await (const message of ws.readable) check(message); }
    else if (way === 2) {
      for await (const { readable } of ws.messages()) for await (const _ of readable);
    } else {
      // Reads nothing at first: messages wait within the limit, followed by the end of the connection.
      if (way === 4) await new Promise((resolve) => setTimeout(resolve, 5));
      ws.discard();
    }
  } catch (error) {
    assert.equal((error as Error).name, "WebSocketError");
  }
  if (way < 3) assert.equal(ws.stats.queued, 0);
}

function checkMessage(message: string | Uint8Array, most = MAX_MESSAGE): void {
  assert.ok(message.length <= most);
}

/** Sends messages in several ways. Each promise must settle. */
function sendSome(random: Random, ws: WebSocketConnection): Promise<unknown>[] {
  const sends: (() => Promise<unknown>)[] = [
    () => ws.send("a"),
    () => ws.send(random.bytes(random.pick([10, 10_000, 100_000]))),
    () => ws.send(["a", "b"]),
    () => ws.ping(random.bytes(4)),
    () => ws.pong(),
    () => ws.close({ closeCode: 4000 }),
  ];
  return random.list(3, () => random.pick(sends)());
}

/** Returns how a connection ended. All of its promises must have settled by then. */
async function endOf(
  ws: WebSocketConnection,
  others: Promise<unknown>[],
  { maxMessageSize } = LIMITS,
): Promise<string> {
  const [closed] = await soon(Promise.allSettled([ws.closed, ...others]));
  assert.equal(ws.state, "closed");
  const { stats } = ws;
  assert.ok(stats.peakQueued <= INBOX + maxMessageSize + 64, `${stats.peakQueued} have waited`);
  if (closed.status === "fulfilled") return "closed";
  const { closeCode, name } = closed.reason;
  assert.equal(name, "WebSocketError");
  assert.ok(CLOSE_CODES.has(closeCode) || closeCode >= 1000, `${closeCode}`);
  return `failed ${CLOSE_CODES.has(closeCode) ? closeCode : "with a code"}`;
}

const connection: Target = {
  what: "WebSocketConnection in both roles, read and written in every way: every promise settles",
  inputs: 15_000,
  async run(random) {
    const role = random.pick(["client", "server"] as const);
    const [ws, far] = await opened(role);
    const reading = readAll(random, ws);
    const sending = sendSome(random, ws);
    for (const chunk of chop(random, frameInput(random, role).bytes).slice(0, 2000)) {
      far.write([chunk]);
    }
    leave(random, far);
    return await endOf(ws, [reading, ...sending]);
  },
};

const compressed: Target = {
  what: "WebSocketConnection with valid and invalid compressed messages: every promise settles",
  inputs: 5_000,
  async run(random) {
    const role = random.pick(["client", "server"] as const);
    const [ws, far] = await opened(role, COMPRESSED, EXTENSIONS);
    assert.equal(ws.extensions.split(";")[0], "permessage-deflate");
    const reading = readAll(random, ws, COMPRESSED);
    const sending = sendSome(random, ws);
    for (const chunk of chop(random, compressedInput(random, role, {}).bytes).slice(0, 2000)) {
      far.write([chunk]);
    }
    leave(random, far);
    return await endOf(ws, [reading, ...sending], COMPRESSED);
  },
};

const opening: Target = {
  what: "accept() and connect(): return a connection, or fail",
  inputs: 15_000,
  async run(random) {
    const [near, far] = transportPair();
    const role = random.pick(["client", "server"] as const);
    let leaves = false;
    const say = (head: Uint8Array) => {
      const frames = random.once(2) ? frameInput(random, role).bytes : new Uint8Array(0);
      for (const chunk of [...chop(random, head), ...chop(random, frames).slice(0, 500)]) {
        far.write([chunk]);
      }
      leaves = true;
      leave(random, far);
    };
    let asked = "";
    peerOf(far, (chunk) => {
      asked += text(chunk);
      const key = /Sec-WebSocket-Key: (\S+)/.exec(asked)?.[1];
      if (!leaves && key !== undefined) say(responseInput(random, key).bytes);
    });
    if (role === "server") say(requestInput(random).bytes);
    let ws: WebSocketConnection;
    try {
      ws = await soon(
        role === "client"
          ? connect("ws://a/", { ...LIMITS, protocols: ["chat"], transport: near })
          : accept(near, { ...LIMITS, protocols: ["chat"] }),
      );
    } catch (error) {
      return outcomeOf(error, []);
    }
    return await endOf(ws, [readAll(random, ws)]);
  },
};

const streams: Target = {
  what: "assemble() over byte streams: every promise settles",
  inputs: 10_000,
  async run(random) {
    const role = random.pick(["client", "server"] as const);
    const [near, far] = transportPair();
    peerOf(far, () => {});
    const duplex = assemble(toStreams(near), {
      role,
      maxMessageSize: MAX_MESSAGE,
      closeTimeout: 20_000,
    });
    const reading = (async () => {
      for await (const message of duplex.readable) checkMessage(message);
    })();
    const writer = duplex.writable.getWriter();
    const writing = random.list(3, () => writer.write(random.bytes(random.below(1000))));
    if (random.once(4)) writing.push(writer.close());
    for (const chunk of chop(random, frameInput(random, role).bytes).slice(0, 500)) {
      far.write([chunk]);
    }
    leave(random, far);
    const settled = Promise.allSettled([duplex.closed, reading, writer.closed, ...writing]);
    const [closed] = await soon(settled);
    if (closed.status === "fulfilled") return "closed";
    const { closeCode } = closed.reason;
    return `failed ${CLOSE_CODES.has(closeCode) ? closeCode : "with a code"}`;
  },
};

class LiveServer implements Target {
  readonly what = "a server that listens: it answers, ends what is wrong, and serves on";
  readonly inputs = 5_000;
  #server!: Server;
  #errors: unknown[] = [];
  #count = 0;
  #good!: WebSocketConnection;

  get #port(): number {
    const { address } = this.#server;
    return address.transport === "tcp" ? address.port : 0;
  }

  async begin(): Promise<void> {
    this.#errors = [];
    this.#server = await serve(
      {
        ...COMPRESSED,
        openTimeout: 5000,
        closeTimeout: 1000,
        onError: (e) => this.#errors.push(e),
      },
      (ws) => ws.readable.pipeTo(ws.writable),
    );
    this.#good = await connect(`ws://127.0.0.1:${this.#port}/`);
  }

  async run(random: Random): Promise<string> {
    const compressed = random.once(4);
    const request = compressed || random.once(2)
      ? latin1(requestWith(compressed ? EXTENSIONS : ""))
      : requestInput(random).bytes;
    const { bytes } = compressed
      ? compressedInput(random, "server", {})
      : frameInput(random, "server");
    const head = random.once(30) ? mutateBytes(random, request) : request;
    const answer = await this.#exchange(random, [head, bytes]);
    assert.deepEqual(this.#errors, []);
    // A valid client must be served at all times.
    if (this.#count++ % 50 === 0) await this.#checkGood();
    const status = /^HTTP\/1\.1 (\d{3}) [^\r\n]*\r\n/.exec(answer)?.[1];
    assert.ok(status !== undefined || answer === "", answer);
    return status ?? "cut";
  }

  async #exchange(random: Random, parts: Uint8Array[]): Promise<string> {
    const socket = connectSocket({ host: "127.0.0.1", port: this.#port, allowHalfOpen: true });
    let answer = "";
    socket.on("data", (chunk: Uint8Array) => {
      answer += text(chunk.subarray(0, Math.max(0, 4096 - answer.length)));
    });
    socket.on("error", () => {});
    const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()));
    socket.on("end", () => socket.end());
    for (const part of parts) {
      for (const chunk of chop(random, part).slice(0, 500)) {
        socket.write(chunk);
        if (random.once(20)) await new Promise((resolve) => setImmediate(resolve));
      }
    }
    finish(random, socket);
    await soon(closed);
    return answer;
  }

  async #checkGood(): Promise<void> {
    const message = `message ${this.#count}`;
    await this.#good.send(message);
    assert.equal(await soon(this.#good.receive()), message);
  }

  async end(): Promise<void> {
    await this.#good?.close();
    await soon(this.#server.shutdown());
    assert.equal(this.#server.connections.size, 0);
    assert.deepEqual(this.#errors, []);
  }
}

function finish(random: Random, socket: Socket): void {
  const how = random.below(8);
  if (how === 0) socket.resetAndDestroy();
  else if (how === 1) socket.destroy();
  else socket.end();
}

/** The targets with I/O. */
export const LIVE: Readonly<Record<string, Target>> = {
  connection,
  compressed,
  opening,
  streams,
  server: new LiveServer(),
};
