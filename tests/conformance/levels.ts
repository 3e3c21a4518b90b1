/** The levels at which a row runs: an echo over each, and what the echo did with the row. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type AddressInfo, connect as dial, createServer, type Socket } from "node:net";
import {
  accept,
  connect,
  type Message,
  serve,
  type WebSocketConnection,
  type WebSocketError,
} from "../../mod.ts";
import {
  type Frame,
  MessageAssembler,
  Opcode,
  Protocol,
  type ProtocolEvent,
  RemoteProtocolError,
  response,
  type Role,
} from "../../lib/core/mod.ts";
import { type ByteDuplex, toStreams } from "../../lib/transport.ts";
import { parseClose, serializeClose } from "../../lib/core/close.ts";
import {
  assemble,
  FrameDecoderStream,
  FrameEncoderStream,
  MessageAssemblerStream,
  MessageFragmenterStream,
} from "../../lib/streams.ts";
import { transportPair } from "../../lib/testing.ts";
import { nextTurn } from "../../lib/timers.ts";
import { FrameCollector, memoryLine, Peer, socketLine } from "./peer.ts";
import { close, encode, type Outcome, type Row, type Script, scripts } from "./row.ts";

/** The result of a row. */
export interface Observed {
  frames: Frame[];
  outcome: Outcome;
}

/** Runs a row against an end of the role. */
export type Level = (row: Row, role: Role, rechop?: number) => Promise<Observed>;

/** The codes of a clean close after which an iteration ends without an error. */
const QUIET_CODES = [1000, 1001, 1005];

/** How a connection echoes its messages. */
export type Echo = "pipe" | "loop";

const HOST = "127.0.0.1";
const OPTIONS = { pingInterval: 0, pingTimeout: 0 };

function peerOf(role: Role): Role {
  return role === "server" ? "client" : "server";
}

// The protocol alone

/** An echo over `Protocol`. */
class ProtocolEcho {
  readonly frames: Frame[] = [];
  outcome: Outcome | undefined;
  readonly #protocol: Protocol;
  readonly #assembler = new MessageAssembler();
  readonly #collector: FrameCollector;

  constructor(role: Role) {
    this.#protocol = new Protocol(role, { maxMessageSize: 1048576 });
    this.#collector = new FrameCollector(peerOf(role));
  }

  receive(bytes: Uint8Array | null): void {
    if (this.outcome !== undefined) return;
    this.#protocol.receive(bytes);
    try {
      for (const event of this.#protocol.events()) this.#take(event);
    } catch (error) {
      if (!(error instanceof RemoteProtocolError)) throw error;
      assert.ok(error.event?.type === "close");
      this.#send(error.event);
      this.outcome = { clean: false, code: error.closeCode };
    }
  }

  #take(event: ProtocolEvent): void {
    if (event.type === "text" || event.type === "binary") {
      const data = this.#assembler.push(event);
      const finished = { frameFinished: true, messageFinished: true };
      if (typeof data === "string") this.#send({ type: "text", data, ...finished });
      else if (data !== undefined) this.#send({ type: "binary", data, ...finished });
      return;
    }
    const due = response(event);
    if (due !== undefined) this.#send(due);
    if (event.type !== "close") return;
    this.outcome = { clean: due !== undefined, code: event.closeCode };
  }

  #send(event: ProtocolEvent): void {
    this.frames.push(...this.#collector.push(this.#protocol.send(event)));
  }
}

/** The level of `Protocol` alone. */
export const protocolLevel: Level = (row, role, rechop) => {
  const echo = new ProtocolEcho(role);
  let expected = 0;
  for (const { chunks, expect, end } of scripts(row, peerOf(role), rechop)) {
    for (const chunk of chunks) echo.receive(chunk);
    if (end) echo.receive(null);
    expected += expect.length;
    assert.ok(echo.frames.length >= expected, "all answers came before the next turn");
  }
  assert.ok(echo.outcome);
  return Promise.resolve({ frames: echo.frames, outcome: echo.outcome });
};

// The other levels

/** Sends what the row says, and returns the frames that came back. */
async function play(peer: Peer, turns: readonly Script[], paced: boolean): Promise<Frame[]> {
  let expected = 0;
  for (const { chunks, expect, end } of turns) {
    for (const chunk of chunks) {
      peer.write(chunk);
      // A turn of the event loop between the chunks, so that they do not arrive as one.
      if (paced && chunks.length > 1) await new Promise<void>((resolve) => nextTurn(resolve));
    }
    if (end) peer.end();
    expected += expect.length;
    await peer.received(expected);
  }
  await peer.finish();
  return peer.frames;
}

/** The turns of a row, and the peer's answer to a Close frame that the other end sends first. */
function turnsOf(row: Row, role: Role, rechop?: number): Script[] {
  const peer = peerOf(role);
  const turns = scripts(row, peer, rechop);
  if (row.outcome.clean || turns.some(({ end }) => end)) return turns;
  const answer = encode(close(row.outcome.code), peer);
  return [...turns, { chunks: [answer], expect: [], end: false }];
}

interface Closing {
  readonly closed: WebSocketConnection["closed"];
}

/** How an end closes. Checks that its echo ends in the same way. */
async function outcomeOf({ closed }: Closing, echoed: Promise<void>, echo: Echo): Promise<Outcome> {
  const [outcome, end] = await Promise.all([
    closed.then(
      ({ closeCode }) => ({ clean: true, code: closeCode }),
      (error) => ({ clean: false, code: (error as WebSocketError).closeCode! }),
    ),
    echoed.then(() => undefined, (error) => error),
  ]);
  const { clean, code } = outcome;
  if (clean && (echo === "pipe" || QUIET_CODES.includes(code))) assert.equal(end, undefined);
  // A Close frame that arrives while an echo waits for room rejects that send.
  else if (!clean && code === 1000) assert.equal(end.name, "InvalidStateError");
  else assert.equal(end.closeCode, code, "the echo ends as the connection does");
  return outcome;
}

/** `assemble()` with a pipe. */
export const assembleLevel: Level = async (row, role, rechop) => {
  const [near, far] = transportPair();
  const peer = new Peer(peerOf(role), memoryLine(far), { handshake: false });
  const duplex = assemble(toStreams(near), { role });
  const outcome = outcomeOf(duplex, duplex.readable.pipeTo(duplex.writable), "pipe");
  const frames = await play(peer, turnsOf(row, role, rechop), false);
  return { frames, outcome: await outcome };
};

/** An echo of the piped transforms, with the answers that `Protocol` would give. */
async function echoTransforms({ readable, writable }: ByteDuplex, role: Role): Promise<Outcome> {
  const items = readable
    // A decoder that fails must not cancel the transport: our Close frame still has to be sent.
    .pipeThrough(new FrameDecoderStream({ role }), { preventCancel: true })
    .pipeThrough(new MessageAssemblerStream())
    .getReader();
  const fragmenter = new MessageFragmenterStream();
  const sent = fragmenter.readable
    .pipeThrough(new FrameEncoderStream({ role }))
    .pipeTo(writable);
  const writer = fragmenter.writable.getWriter();
  const answer = async (item: Message | Frame): Promise<Outcome | undefined> => {
    if (typeof item === "string" || item instanceof Uint8Array) {
      return void await writer.write(item);
    }
    const { opcode, payload } = item;
    if (opcode === Opcode.Ping) await writer.write({ opcode: Opcode.Pong, payload });
    if (opcode !== Opcode.Close) return;
    const { closeCode } = parseClose(payload);
    await writer.write(item);
    return { clean: true, code: closeCode };
  };
  let outcome: Outcome | undefined;
  try {
    while (outcome === undefined) {
      const { done, value } = await items.read();
      outcome = done ? { clean: false, code: 1006 } : await answer(value);
    }
  } catch (error) {
    assert.ok(error instanceof RemoteProtocolError);
    const { closeCode: code, event } = error;
    if (code !== 1006 && event?.type === "close") {
      await writer.write({ opcode: Opcode.Close, payload: serializeClose(event) });
    }
    outcome = { clean: false, code };
  }
  await writer.close();
  await sent;
  return outcome;
}

/** The transforms, piped. */
export const transformsLevel: Level = async (row, role, rechop) => {
  const [near, far] = transportPair();
  const peer = new Peer(peerOf(role), memoryLine(far), { handshake: false });
  const outcome = echoTransforms(toStreams(near), role);
  const frames = await play(peer, turnsOf(row, role, rechop), false);
  return { frames, outcome: await outcome };
};

async function echoOver(ws: WebSocketConnection, echo: Echo): Promise<void> {
  if (echo === "pipe") return await ws.readable.pipeTo(ws.writable);
  for await (const message of ws) await ws.send(message);
}

/** A connection over a pair in memory. */
export function memoryLevel(echo: Echo): Level {
  return async (row, role, rechop) => {
    const [near, far] = transportPair();
    const peer = new Peer(peerOf(role), memoryLine(far));
    const [ws] = await Promise.all([
      role === "server"
        ? accept(near, OPTIONS)
        : connect("ws://localhost/", { ...OPTIONS, transport: near }),
      peer.open(),
    ]);
    const outcome = outcomeOf(ws, echoOver(ws, echo), echo);
    const frames = await play(peer, turnsOf(row, role, rechop), false);
    return { frames, outcome: await outcome };
  };
}

/** A connection over a socket. */
export function socketLevel(echo: Echo): Level {
  return (row, role) => {
    const turns = turnsOf(row, role);
    return role === "server" ? serverOverSocket(turns, echo) : clientOverSocket(turns, echo);
  };
}

async function serverOverSocket(turns: readonly Script[], echo: Echo): Promise<Observed> {
  const errors: unknown[] = [];
  let outcome: Promise<Outcome> | undefined;
  const server = await serve({ ...OPTIONS, onError: (error) => errors.push(error) }, (ws) => {
    const echoed = echoOver(ws, echo);
    outcome = outcomeOf(ws, echoed, echo);
    return echoed;
  });
  assert.ok(server.address.transport === "tcp");
  const { port } = server.address;
  const peer = new Peer("client", socketLine(dial({ host: HOST, port, allowHalfOpen: true })));
  await peer.open();
  const frames = await play(peer, turns, true);
  await server.shutdown();
  assert.deepEqual(errors, []);
  assert.ok(outcome);
  return { frames, outcome: await outcome };
}

async function clientOverSocket(turns: readonly Script[], echo: Echo): Promise<Observed> {
  const server = createServer({ allowHalfOpen: true });
  const accepted = new Promise<Peer>((resolve) => {
    server.once("connection", (socket: Socket) => resolve(new Peer("server", socketLine(socket))));
  });
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  const { port } = server.address() as AddressInfo;
  const connected = connect(`ws://${HOST}:${port}`, OPTIONS);
  const peer = await accepted;
  await peer.open();
  const ws = await connected;
  const outcome = outcomeOf(ws, echoOver(ws, echo), echo);
  const frames = await play(peer, turns, true);
  await new Promise((resolve) => server.close(resolve));
  return { frames, outcome: await outcome };
}

/** Checks that the result of a row is what the row says. */
export function check(row: Row, { frames, outcome }: Observed): void {
  const expected = row.turns.flatMap(({ expect }) => expect).map(({ opcode, payload }) => ({
    fin: true,
    rsv: 0,
    opcode,
    payload,
  }));
  const got = frames.map((frame) => withoutOurReason(frame, row));
  if (row.mayLose) assertWithoutSome(got, expected);
  else assertFrames(got, expected);
  if (!row.mayLose || outcome.clean) assert.deepEqual(outcome, row.outcome);
}

/** The frame without its reason, if it is the Close frame of a failure: the row does not say the wording. */
export function withoutOurReason(frame: Frame, row: Row): Frame {
  if (row.outcome.clean || frame.opcode !== Opcode.Close) return frame;
  return { ...frame, payload: frame.payload.slice(0, 2) };
}

/** Compares the short parts first, so that a message of a mebibyte is never printed. */
export function assertFrames(got: readonly Frame[], expected: readonly Frame[]): void {
  assert.deepEqual(got.map(summary), expected.map(summary));
  got.forEach(({ payload }, i) => assert.ok(equal(payload, expected[i].payload), `frame ${i}`));
}

function summary({ fin, rsv, opcode, payload }: Frame) {
  return { fin, rsv, opcode, length: payload.length, payload: payload.slice(0, 64) };
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Checks that the frames are those expected, in order. Messages before the Close frame may be missing. */
function assertWithoutSome(got: readonly Frame[], expected: readonly Frame[]): void {
  const messages = got.slice(0, -1);
  assertFrames(messages, expected.slice(0, messages.length));
  assertFrames(got.slice(-1), expected.slice(-1));
}
