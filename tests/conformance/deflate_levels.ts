/** The levels at which a compressed row runs: messages to an echo and back. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import {
  type Extension,
  type Message,
  MessageAssembler,
  PerMessageDeflate,
  type PerMessageDeflateOptions,
  Protocol,
  type ProtocolEvent,
  type Role,
} from "../../lib/core/mod.ts";
import { toStreams } from "../../lib/transport.ts";
import { assemble } from "../../lib/streams.ts";
import { pair, transportPair } from "../../lib/testing.ts";
import { deflateEngine } from "../../lib/zlib.ts";
import type { DeflateRow } from "./deflate.ts";
import { wsPair } from "./ws.ts";

/** Sends `count` messages of a row to an echo in the role. */
export type DeflateLevel = (row: DeflateRow, role: Role, count: number) => Promise<void>;

const LIMITS = { maxMessageSize: 2 ** 20 };

/** The extensions of both ends after they have agreed on the options. */
function agree(options: PerMessageDeflateOptions): Record<Role, Extension> {
  const factory = new PerMessageDeflate({ ...options, engine: deflateEngine });
  const accepted = factory.accept(factory.offer()[0])!;
  return { client: factory.finalize(accepted.parameters), server: accepted.extension };
}

/** The message in pieces. Text is ASCII here, so that code units are bytes. */
function* cut(message: Message, { fragment }: DeflateRow): Generator<Message> {
  const step = fragment === 0 ? message.length : fragment;
  for (let at = 0; at < message.length; at += step) {
    yield typeof message === "string"
      ? message.slice(at, at + step)
      : message.subarray(at, at + step);
  }
}

function assertSame(got: Message | undefined, sent: Message, i: number): void {
  const same = typeof got === "string" || typeof sent === "string"
    ? got === sent
    : got !== undefined && Buffer.compare(got, sent) === 0;
  assert.ok(same, `message ${i} comes back as it was sent`);
}

function eventOf(data: Message, messageFinished: boolean): ProtocolEvent {
  const finished = { frameFinished: true, messageFinished };
  return typeof data === "string"
    ? { type: "text", data, ...finished }
    : { type: "binary", data, ...finished };
}

/** Sends a message in pieces, and returns what the receiver got. */
function transfer(from: Protocol, to: Protocol, pieces: Message[]): Message | undefined {
  const assembler = new MessageAssembler();
  let whole: Message | undefined;
  for (const [i, piece] of pieces.entries()) {
    to.receive(from.send(eventOf(piece, i === pieces.length - 1)));
    for (const event of to.events()) {
      assert.ok(event.type === "text" || event.type === "binary");
      whole = assembler.push(event) ?? whole;
    }
  }
  return whole;
}

const protocolLevel: DeflateLevel = (row, role, count) => {
  const agreed = agree(row.options);
  const other: Role = role === "client" ? "server" : "client";
  const echo = new Protocol(role, { ...LIMITS, extensions: [agreed[role]] });
  const peer = new Protocol(other, { ...LIMITS, extensions: [agreed[other]] });
  for (let i = 0; i < count; i++) {
    const sent = row.message(i);
    const received = transfer(peer, echo, [...cut(sent, row)]);
    assertSame(received, sent, i);
    assertSame(transfer(echo, peer, [received!]), sent, i);
  }
  echo.dispose();
  peer.dispose();
  return Promise.resolve();
};

const assembleLevel: DeflateLevel = async (row, role, count) => {
  const agreed = agree(row.options);
  const other: Role = role === "client" ? "server" : "client";
  const [near, far] = transportPair();
  const echo = assemble(toStreams(near), { ...LIMITS, role, extensions: [agreed[role]] });
  const peer = assemble(toStreams(far), { ...LIMITS, role: other, extensions: [agreed[other]] });
  const echoed = echo.readable.pipeTo(echo.writable);
  const writer = peer.writable.getWriter();
  const reader = peer.readable.getReader();
  for (let i = 0; i < count; i++) {
    const sent = row.message(i);
    writer.write(sent);
    assertSame((await reader.read()).value, sent, i);
  }
  await writer.close();
  await echoed;
};

const memoryLevel: DeflateLevel = async (row, role, count) => {
  const options = { ...LIMITS, compression: row.options };
  const [client, server] = await pair({ client: options, server: options });
  assert.match(client.extensions, /^permessage-deflate/);
  const [echo, peer] = role === "client" ? [client, server] : [server, client];
  const echoed = echo.readable.pipeTo(echo.writable);
  for (let i = 0; i < count; i++) {
    const sent = row.message(i);
    peer.send(row.fragment === 0 ? sent : cut(sent, row));
    assertSame(await peer.receive(), sent, i);
  }
  await peer.close({ closeCode: 1000 });
  await echoed;
};

/** The peer is the npm package "ws". */
const socketLevel: DeflateLevel = async (row, role, count) => {
  const { clientMaxWindowBits, serverMaxWindowBits } = row.options;
  const { clientNoContextTakeover, serverNoContextTakeover } = row.options;
  const theirs = {
    clientMaxWindowBits,
    serverMaxWindowBits,
    clientNoContextTakeover,
    serverNoContextTakeover,
    threshold: 0,
  };
  const pair = await wsPair(role, {
    ours: { ...LIMITS, compression: row.options },
    theirServer: { perMessageDeflate: theirs },
    theirDeflate: theirs,
  });
  assert.match(pair.ours.extensions, /^permessage-deflate/);
  const echoed = pair.ours.readable.pipeTo(pair.ours.writable);
  for (let i = 0; i < count; i++) {
    const sent = row.message(i);
    const pieces = [...cut(sent, row)];
    const came = pair.theirs.next();
    pieces.forEach((piece, at) =>
      pair.theirs.socket.send(piece, { fin: at === pieces.length - 1 })
    );
    assertSame(await came, sent, i);
  }
  pair.theirs.socket.close(1000);
  await echoed;
  assert.deepEqual(pair.theirs.errors, []);
  await pair.stop();
};

/** All levels with their names. */
export const DEFLATE_LEVELS: readonly (readonly [name: string, level: DeflateLevel])[] = [
  ["protocol", protocolLevel],
  ["assemble", assembleLevel],
  ["memory", memoryLevel],
  ["socket", socketLevel],
];
