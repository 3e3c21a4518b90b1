/**
 * Many connections at the same time, whose messages, pings and reasons say whose they are. They share the
 * memory that is read into, the buffers of the platform, and the frames of broadcasts. No byte may reach
 * another connection, also not long after a message was received. OWNERS_SEED sets the seed, and
 * OWNERS_SECONDS repeats each test with further seeds.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { connect as connectSocket, type Socket } from "node:net";
import process from "node:process";
import { describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import {
  connect,
  type ConnectOptions,
  type Message,
  serve,
  type ServeOptions,
  type WebSocketConnection,
} from "../mod.ts";
import { attach } from "../lib/node.ts";
import {
  encodeFrame,
  Endpoint,
  FrameDecoder,
  parseResponseHead,
  serializeClose,
} from "../lib/core/mod.ts";
import { WebSocketServer } from "../lib/ws.ts";
import { Random } from "../scripts/fuzz/random.ts";
import { concat, utf8 } from "./bytes.ts";
import { certificates } from "./certificates.ts";
import { portOf, withHttp } from "./http_servers.ts";

const { OWNERS_SEED, OWNERS_SECONDS = "0" } = process.env;
const SEED = Number(OWNERS_SEED ?? Date.now() % 1_000_000);

const CONNECTIONS = 14;
const MESSAGES = 25;
const SIZES = [20, 20, 200, 200, 2000, 20_000, 70_000, 150_000];

/** The characters of an owner: one each of 1, 2, 3 and 4 bytes. */
function charactersOf(owner: number): string[] {
  return [0x20, 0x100, 0x4e00, 0x1f300].map((first) => String.fromCodePoint(first + owner));
}

function textOf(random: Random, owner: number, size: number): string {
  const characters = charactersOf(owner);
  const usual = random.pick(characters);
  const rare = random.pick(characters);
  const at = random.below(size + 1);
  return usual.repeat(at) + rare + usual.repeat(size - at);
}

function bytesOf(owner: number, size: number): Uint8Array {
  return new Uint8Array(size).fill(owner);
}

/** The message with this index of an owner. It is the same each time. */
function messageOf(seed: number, owner: number, index: number): Message {
  const random = new Random(seed * 1_000_003 + owner * 1009 + index);
  const size = random.below(random.pick(SIZES));
  if (random.once(2)) return textOf(random, owner, size >> 2);
  const bytes = bytesOf(owner, size);
  // The position and the size are also checked.
  if (size > 8) bytes[random.below(size)] = 200 + index % 50;
  return bytes;
}

function assertSame(actual: Message, expected: Message, what: string): void {
  if (typeof expected === "string" ? actual === expected : isEqual(actual, expected)) return;
  const show = (message: Message) =>
    typeof message === "string"
      ? `text ${message.length} ${JSON.stringify(message.slice(0, 40))}`
      : `bytes ${message.length} ${message.subarray(0, 20)}`;
  assert.fail(`${what}: ${show(actual)}, but expected ${show(expected)}`);
}

function isEqual(actual: Message, expected: Uint8Array): boolean {
  return typeof actual !== "string" && Buffer.compare(actual, expected) === 0;
}

/** Checks the messages of an owner when they come, and again at the end. */
class Checked {
  readonly kept: Message[] = [];
  readonly #seed: number;
  readonly #owner: number;
  readonly #what: string;

  constructor(seed: number, owner: number, what: string) {
    this.#seed = seed;
    this.#owner = owner;
    this.#what = `${what} ${owner}, seed ${seed}`;
  }

  add(message: Message): void {
    this.#check(message, this.kept.length);
    if (typeof message !== "string" && message.constructor === Uint8Array) {
      assert.equal(message.buffer.byteLength, message.length, this.#what);
    }
    this.kept.push(message);
  }

  #check(message: Message, index: number): void {
    assertSame(message, messageOf(this.#seed, this.#owner, index), `${this.#what}, ${index}`);
  }

  again(): void {
    this.kept.forEach((message, index) => this.#check(message, index));
  }
}

/** The ways in which a connection is read. Each calls back with a message, and waits for the result. */
type Read = (
  ws: WebSocketConnection,
  each: (message: Message) => Promise<void>,
) => Promise<void>;

async function ofStream(
  stream: ReadableStream<Message>,
  each: (message: Message) => Promise<void>,
): Promise<void> {
  for await (const message of stream as unknown as AsyncIterable<Message>) await each(message);
}

const READS: readonly Read[] = [
  async (ws, each) => {
    for await (const message of ws) await each(message);
  },
  async (ws, each) => {
    try {
      for (;;) await each(await ws.receive());
    } catch (error) {
      if (ws.state === "open") throw error;
    }
  },
  (ws, each) => ofStream(ws.readable, each),
  (ws, each) =>
    ws.readable.pipeThrough(new TransformStream()).pipeTo(new WritableStream({ write: each })),
  async (ws, each) => {
    for await (const message of ws.messages() as unknown as AsyncIterable<Pieces>) {
      await each(await joined(message));
    }
  },
];

interface Pieces {
  type: "text" | "binary";
  readable: AsyncIterable<Message>;
}

/** Joins the pieces only after all of them have come. */
async function joined({ type, readable }: Pieces): Promise<Message> {
  const pieces: Message[] = [];
  for await (const piece of readable) pieces.push(piece);
  return type === "text" ? pieces.join("") : concat(pieces as Uint8Array[]);
}

/** Checks and echoes what a server receives. The owner is the path of the request. */
function echoing(seed: number, all: Checked[]): (ws: WebSocketConnection) => Promise<void> {
  return async (ws) => {
    const owner = Number(new URL(ws.request.url).pathname.slice(1));
    if (owner % 6 === 0) {
      await ws.readable.pipeTo(ws.writable);
    } else {
      const random = new Random(seed + owner);
      const checked = new Checked(seed, owner, "server");
      all.push(checked);
      const read = READS[owner % 6 - 1];
      await read(ws, async (message) => {
        checked.add(message);
        if (random.once(8)) { for (let i = random.below(5); i > 0; i--) await turn(); }
        const sent = ws.send(message);
        if (random.once(3)) await sent;
      });
    }
    const { reason } = await ws.closed;
    assert.equal(reason, reasonOf(owner));
  };
}

function reasonOf(owner: number): string {
  return charactersOf(owner).join("").repeat(5);
}

/** Sends frames over a socket, cut and fragmented at random, and checks the answers. */
async function runRaw(socket: Socket, seed: number, owner: number): Promise<void> {
  const random = new Random(seed * 31 + owner);
  const endpoint = new Endpoint("client");
  const checked = new Checked(seed, owner, "raw client");
  const decoder = new FrameDecoder({ role: "client" });
  let pieces: Uint8Array[] = [];
  let isText = false;
  let failure: unknown;
  const read = (chunk: Uint8Array) => {
    decoder.push(chunk);
    for (let piece = decoder.next(); piece !== undefined; piece = decoder.next()) {
      const { opcode, fin } = piece.header;
      if (opcode === 10) assertSame(piece.payload, bytesOf(owner, piece.payload.length), "pong");
      if (opcode >= 8) continue;
      if (opcode !== 0) isText = opcode === 1;
      pieces.push(piece.payload.slice());
      if (!piece.last || !fin) continue;
      const whole = concat(pieces);
      pieces = [];
      checked.add(isText ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(whole) : whole);
    }
  };
  let isOpen = false;
  let head: Uint8Array = new Uint8Array(0);
  socket.on("error", () => {});
  socket.on("end", () => socket.end());
  socket.on("data", (chunk: Uint8Array) => {
    try {
      if (isOpen) return read(chunk);
      head = concat([head, chunk]);
      const parsed = parseResponseHead(head);
      if (parsed === undefined) return;
      isOpen = true;
      read(head.subarray(parsed.length));
    } catch (error) {
      failure ??= error;
      socket.destroy();
    }
  });
  const target = `/${owner}`;
  let out = [endpoint.send({ type: "request", host: "localhost", target })];
  const write = async (most: number) => {
    const bytes = concat(out);
    out = [];
    for (let at = 0; at < bytes.length;) {
      const size = 1 + random.below(most);
      if (!socket.write(bytes.subarray(at, at + size)) && !socket.destroyed) {
        await Promise.race([once(socket, "drain"), once(socket, "close")]);
      }
      at += size;
      if (random.once(3)) await turn();
    }
  };
  // The first frames may come with the request.
  if (random.once(2)) await write(100_000);
  while (!isOpen && out.length === 0 && !socket.destroyed) await turn();
  for (let index = 0; index < MESSAGES && !socket.destroyed; index++) {
    const message = messageOf(seed, owner, index);
    out.push(...framesOf(random, owner, message));
    if (random.once(3)) await write(random.pick([20, 300, 5000, 100_000, 300_000]) + 1);
    if (random.once(200)) return void socket.destroy();
  }
  await write(300_000);
  while (checked.kept.length < MESSAGES && !socket.destroyed) await turn();
  if (failure !== undefined) throw failure;
  assert.equal(checked.kept.length, MESSAGES, `raw client ${owner}, seed ${seed}`);
  const close = serializeClose({ closeCode: 1000, reason: reasonOf(owner) });
  socket.write(encodeFrame({ opcode: 8, payload: close }, { mask: true }));
  if (!socket.destroyed) await once(socket, "close");
  checked.again();
}

/** The frames of a message, with pings between them. */
function framesOf(random: Random, owner: number, message: Message): Uint8Array[] {
  const payload = typeof message === "string" ? utf8(message) : message;
  const ends = random.once(2) ? [] : random.list(5, () => random.below(payload.length + 1));
  ends.push(payload.length);
  ends.sort((a, b) => a - b);
  const frames: Uint8Array[] = [];
  ends.forEach((end, i) => {
    const opcode = i > 0 ? 0 : typeof message === "string" ? 1 : 2;
    const fin = i === ends.length - 1;
    const part = payload.subarray(ends[i - 1] ?? 0, end);
    frames.push(encodeFrame({ opcode, fin, payload: part }, { mask: true }));
    if (!random.once(4)) return;
    const ping = bytesOf(owner, random.below(126));
    frames.push(encodeFrame({ opcode: 9, payload: ping }, { mask: true }));
  });
  return frames;
}

/** The items of a message that is sent in pieces, which may be cut within a character. */
function* itemsOf(random: Random, message: Message): Generator<Message> {
  for (let at = 0; at < message.length || at === 0;) {
    const end = at + 1 + random.below(message.length);
    yield message.slice(at, end) as Message;
    at = end;
  }
}

/** Sends and checks messages with a client of this library. */
async function runClient(ws: WebSocketConnection, seed: number, owner: number): Promise<void> {
  const random = new Random(seed * 37 + owner);
  const checked = new Checked(seed, owner, "client");
  const sending = (async () => {
    for (let index = 0; index < MESSAGES; index++) {
      const message = messageOf(seed, owner, index);
      const sent = ws.send(random.once(4) ? itemsOf(random, message) : message);
      if (random.once(2)) await sent;
      // The last messages may have come back already.
      if (random.once(10)) await ws.ping(bytesOf(owner, random.below(125))).catch(() => {});
      if (random.once(5)) await turn();
    }
  })();
  // Otherwise its rejection would count as unhandled before it is awaited.
  sending.catch(() => {});
  const read = READS[(owner >> 1) % READS.length];
  const reading = read(ws, async (message) => {
    checked.add(message);
    if (random.once(8)) { for (let i = random.below(5); i > 0; i--) await turn(); }
    if (checked.kept.length === MESSAGES) {
      void ws.close({ closeCode: 1000, reason: reasonOf(owner) });
    }
  });
  await Promise.all([sending, reading, ws.closed]);
  assert.equal(checked.kept.length, MESSAGES);
  checked.again();
}

/** Runs clients of two kinds with a server. */
async function runClients(
  url: (owner: number) => string,
  seed: number,
  options: ConnectOptions,
  socket?: () => Socket,
): Promise<void> {
  const runs = Array.from({ length: CONNECTIONS }, async (_, i) => {
    const owner = i + 1;
    if (socket !== undefined && i % 2 === 0) await runRaw(socket(), seed, owner);
    else await runClient(await connect(url(owner), options), seed, owner);
  });
  await Promise.all(runs);
}

interface Setup {
  serve?: Omit<ServeOptions, "port">;
  connect?: ConnectOptions;
}

async function withServer(seed: number, setup: Setup): Promise<void> {
  const all: Checked[] = [];
  const errors: unknown[] = [];
  const server = await serve(
    { port: 0, hostname: "127.0.0.1", onError: (error) => void errors.push(error), ...setup.serve },
    echoing(seed, all),
  );
  const { port } = server;
  const raw = () => connectSocket({ host: "127.0.0.1", port: port!, allowHalfOpen: true });
  const secure = setup.serve?.tls !== undefined;
  try {
    const url = (owner: number) => `${secure ? "wss" : "ws"}://localhost:${port}/${owner}`;
    await runClients(url, seed, setup.connect ?? {}, secure ? undefined : raw);
  } finally {
    await server.shutdown({ timeout: 1000 });
  }
  for (const checked of all) checked.again();
  assert.deepEqual(errors.filter(isWrong), [], `seed ${seed}`);
}

/** Whether an error of a handler is not that of a client that has left. */
function isWrong(error: unknown): boolean {
  return error instanceof assert.AssertionError || (error as Error).name !== "WebSocketError";
}

/** Runs a test with one seed, or with as many as there is time for. */
async function withSeeds(run: (seed: number) => Promise<void>): Promise<void> {
  const end = performance.now() + 1000 * Number(OWNERS_SECONDS);
  let seed = SEED;
  do {
    try {
      await run(seed);
    } catch (error) {
      console.log(`OWNERS_SEED=${seed}`);
      throw error;
    }
    seed++;
  } while (performance.now() < end);
}

const onFrame = (_: "in" | "out", { payload }: { payload: Uint8Array }) => {
  // Pings, whose payloads are random, and Close frames have other bytes too.
  frames.push([payload, payload.slice()]);
};
let frames: [payload: Uint8Array, copy: Uint8Array][] = [];

describe("Owners", () => {
  it("Messages over TCP stay with their owners", async () => {
    await withSeeds((seed) => withServer(seed, {}));
  });

  it("Messages with tiny marks and pings stay with their owners", async () => {
    const options = {
      readableStrategy: { highWaterMark: 1 },
      pingInterval: 5,
      maxControlFramesPerSecond: Infinity,
    };
    await withSeeds((seed) => withServer(seed, { serve: options, connect: options }));
  });

  it("Compressed messages stay with their owners", async () => {
    await withSeeds((seed) =>
      withServer(seed, { serve: { compression: true }, connect: { compression: true } })
    );
  });

  it("Observed messages stay with their owners", async () => {
    await withSeeds(async (seed) => {
      frames = [];
      const options = { onFrame, maxControlFramesPerSecond: Infinity };
      await withServer(seed, { serve: options, connect: options });
      for (const [payload, copy] of frames) assertSame(payload, copy, "frame");
    });
  });

  it("Messages over TLS stay with their owners", async () => {
    const { ca, leaf } = await certificates();
    await withSeeds((seed) => withServer(seed, { serve: { tls: leaf }, connect: { tls: { ca } } }));
  });

  it("Messages of attach() stay with their owners", async () => {
    await withSeeds((seed) =>
      withHttp(async (server) => {
        const all: Checked[] = [];
        const errors: unknown[] = [];
        const onError = (error: unknown) => void errors.push(error);
        const attached = attach(server, { onError }, echoing(seed, all));
        const port = portOf(server);
        const raw = () => connectSocket({ host: "127.0.0.1", port, allowHalfOpen: true });
        await runClients((owner) => `ws://127.0.0.1:${port}/${owner}`, seed, {}, raw);
        await attached.shutdown();
        for (const checked of all) checked.again();
        assert.deepEqual(errors.filter(isWrong), [], `seed ${seed}`);
      })
    );
  });

  it("Messages of sluice/ws stay with their owners", async () => {
    await withSeeds(async (seed) => {
      const all: Checked[] = [];
      let failure: unknown;
      const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
      await once(server, "listening");
      server.on("connection", (ws, request) => {
        const owner = Number(request.url!.slice(1));
        const checked = new Checked(seed, owner, "server of ws");
        const owns = (...buffers: Buffer[]) => {
          for (const { buffer, length } of buffers) {
            assert.equal(buffer.byteLength, length, `seed ${seed}`);
          }
        };
        const noting = (check: () => void) => {
          try {
            check();
          } catch (error) {
            failure ??= error;
            ws.terminate();
          }
        };
        all.push(checked);
        if (owner % 3 === 0) ws.binaryType = "fragments";
        ws.on("error", () => {});
        ws.on("message", (data: Buffer | Buffer[], isBinary: boolean) => {
          const buffers = Array.isArray(data) ? data : [data];
          const whole = Array.isArray(data) ? Buffer.concat(data) : data;
          noting(() => {
            owns(...buffers);
            checked.add(isBinary ? whole : whole.toString());
          });
          ws.send(whole, { binary: isBinary });
        });
        ws.on("ping", (data: Buffer) =>
          noting(() => {
            owns(data);
            assertSame(data, bytesOf(owner, data.length), "ping");
          }));
        ws.on("close", (_: number, reason: Buffer) => noting(() => owns(reason)));
      });
      const { port } = server.address() as { port: number };
      const raw = () => connectSocket({ host: "127.0.0.1", port, allowHalfOpen: true });
      try {
        await runClients((owner) => `ws://127.0.0.1:${port}/${owner}`, seed, {}, raw);
      } catch (error) {
        throw failure ?? error;
      } finally {
        server.close();
      }
      if (failure !== undefined) throw failure;
      for (const checked of all) checked.again();
    });
  });
});
