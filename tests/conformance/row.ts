/** The parts of a conformance row, and how its frames are encoded. */
import { Opcode, type Role } from "../../lib/core/mod.ts";
import { concat, hex, utf8 } from "../bytes.ts";

/** A frame that the peer sends. A field that is left out has the value that the protocol requires. */
export interface PeerFrame {
  opcode: number;
  payload: Uint8Array;
  fin?: boolean;
  rsv?: number;
  /** Whether the frame is masked when it must not be, or not masked when it must be. */
  wrongMask?: boolean;
  /** The length that the header declares. Default: the length of the payload */
  declared?: bigint;
  /** The number of bytes that hold the length. Default: the fewest possible */
  lengthBytes?: 0 | 2 | 8;
}

/** A frame that comes back: a whole frame, without reserved bits. */
export interface Answer {
  opcode: Opcode;
  payload: Uint8Array;
}

/** The frames that the peer sends, and the answers that come before its next turn. */
export interface Turn {
  send: readonly PeerFrame[];
  /** How the bytes are cut: into pieces of this length, or between frames. Default: one piece */
  chop?: number | "frames";
  /** How many of the last bytes are kept until the next turn, or are never sent. Default: 0 */
  holdBack?: number;
  expect: readonly Answer[];
  /** Whether the peer ends its side of the transport with this turn. */
  end?: boolean;
}

/** How `closed` settles. */
export interface Outcome {
  clean: boolean;
  code: number;
}

/** One case. The end under test echoes messages. */
export interface Row {
  id: string;
  title: string;
  turns: readonly Turn[];
  outcome: Outcome;
  /** Whether echoes that had no time to be sent before the Close frame may be missing. */
  mayLose?: boolean;
}

// Frames

/** A payload. A string stands for its UTF-8. */
export type Payload = string | Uint8Array;

type Variation = Omit<Partial<PeerFrame>, "opcode" | "payload">;

/** A frame of any opcode. */
export function frame(opcode: number, payload: Payload = "", variation: Variation = {}): PeerFrame {
  return { opcode, payload: bytesOf(payload), ...variation };
}

/** A frame that begins a text message. By default it is the whole message. */
export function text(payload: Payload = "", variation?: Variation): PeerFrame & Answer {
  return { ...frame(Opcode.Text, payload, variation), opcode: Opcode.Text };
}

/** A frame that begins a binary message. By default it is the whole message. */
export function binary(payload: Payload = "", variation?: Variation): PeerFrame & Answer {
  return { ...frame(Opcode.Binary, payload, variation), opcode: Opcode.Binary };
}

/** A continuation frame. By default it is the last one. */
export function continuation(payload: Payload = "", variation?: Variation): PeerFrame {
  return frame(Opcode.Continuation, payload, variation);
}

/** A ping frame. */
export function ping(payload: Payload = ""): PeerFrame {
  return frame(Opcode.Ping, payload);
}

/** A pong frame. */
export function pong(payload: Payload = ""): PeerFrame & Answer {
  return { opcode: Opcode.Pong, payload: bytesOf(payload) };
}

/** A Close frame. Without a code its payload is empty. */
export function close(code?: number, reason: Payload = ""): PeerFrame & Answer {
  const payload = code === undefined
    ? new Uint8Array(0)
    : concat([Uint8Array.of(code >> 8, code & 0xff), bytesOf(reason)]);
  return { opcode: Opcode.Close, payload };
}

/** Marks a frame that is not the last one of its message. */
export const MORE: Variation = { fin: false };

/** A message as frames with these payloads. */
export function fragmented(
  opcode: typeof Opcode.Text | typeof Opcode.Binary,
  payloads: readonly Payload[],
): PeerFrame[] {
  return payloads.map((payload, i) =>
    frame(i === 0 ? opcode : Opcode.Continuation, payload, { fin: i === payloads.length - 1 })
  );
}

/** The bytes in pieces of this length. */
export function pieces(bytes: Uint8Array, length: number): Uint8Array[] {
  const count = Math.ceil(bytes.length / length);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * length, (i + 1) * length));
}

function bytesOf(payload: Payload): Uint8Array {
  return typeof payload === "string" ? utf8(payload) : payload;
}

// Rows

interface RowOptions {
  /** The answers that come first. Default: none */
  before?: readonly Answer[];
  chop?: Turn["chop"];
}

/** A row whose frames cause the given answers. The peer then closes with 1000. */
export function answers(
  id: string,
  title: string,
  send: readonly PeerFrame[],
  expect: readonly Answer[],
  chop?: Turn["chop"],
): Row {
  return converses(id, title, [{ send, expect, chop }]);
}

/** A row of several turns, after which the peer closes with 1000. */
export function converses(id: string, title: string, turns: readonly Turn[]): Row {
  const last = { send: [close(1000)], expect: [close(1000)] };
  return { id, title, turns: [...turns, last], outcome: { clean: true, code: 1000 } };
}

/** A row whose last valid frame is a Close frame. The answer has the same payload. */
export function closes(
  id: string,
  title: string,
  send: readonly PeerFrame[],
  answer: Answer,
  { before = [], chop }: RowOptions = {},
): Row {
  const { payload } = answer;
  const code = payload.length === 0 ? 1005 : (payload[0] << 8) | payload[1];
  const turns = [{ send, expect: [...before, answer], chop }];
  return { id, title, turns, outcome: { clean: true, code } };
}

/** A row that fails the connection with this code. */
export function fails(
  id: string,
  title: string,
  send: readonly PeerFrame[],
  code: number,
  { before = [], chop }: RowOptions = {},
): Row {
  const turns = [{ send, expect: [...before, close(code)], chop }];
  return { id, title, turns, outcome: { clean: false, code } };
}

// Bytes

const KEY = hex("37 fa 21 3d");

/** The bytes of the frame, sent by a peer of this role. */
export function encode(frame: PeerFrame, peer: Role): Uint8Array {
  const { opcode, payload, fin = true, rsv = 0, wrongMask = false } = frame;
  const masked = (peer === "client") !== wrongMask;
  const length = frame.declared ?? BigInt(payload.length);
  const lengthBytes = frame.lengthBytes ?? (length < 126n ? 0 : length < 65536n ? 2 : 8);
  const marker = lengthBytes === 0 ? Number(length) : lengthBytes === 2 ? 126 : 127;
  return concat([
    Uint8Array.of((fin ? 0x80 : 0) | (rsv << 4) | opcode, (masked ? 0x80 : 0) | marker),
    bigEndian(length, lengthBytes),
    masked ? KEY : new Uint8Array(0),
    masked ? payload.map((byte, i) => byte ^ KEY[i % 4]) : payload,
  ]);
}

function bigEndian(value: bigint, size: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, value);
  return new Uint8Array(view.buffer, 8 - size);
}

/** The bytes of one turn, in the chunks that are sent. */
export interface Script {
  chunks: Uint8Array[];
  expect: readonly Answer[];
  end: boolean;
}

const encodedRows = new Map<string, WeakMap<Row, Uint8Array[][]>>();

/** The frames of each turn. They are encoded once, because some rows have 65,536 frames. */
function framesOf(row: Row, peer: Role): Uint8Array[][] {
  if (!encodedRows.has(peer)) encodedRows.set(peer, new WeakMap());
  const rows = encodedRows.get(peer)!;
  let frames = rows.get(row);
  if (frames === undefined) {
    frames = row.turns.map(({ send }) => send.map((frame) => encode(frame, peer)));
    rows.set(row, frames);
  }
  return frames;
}

/**
 * The bytes of the turns of a row.
 *
 * @param rechop Length of the pieces, instead of what the row says
 */
export function scripts(row: Row, peer: Role, rechop?: number): Script[] {
  let held = new Uint8Array(0);
  const encoded = framesOf(row, peer);
  return row.turns.map(({ chop = Infinity, holdBack = 0, expect, end = false }, turn) => {
    // A receiver may change the bytes that it gets.
    const frames = [held, ...encoded[turn].map((frame) => frame.slice())];
    const whole = concat(frames);
    const sent = whole.length - holdBack;
    held = whole.slice(sent);
    const length = rechop ?? chop;
    const chunks = length === "frames"
      ? frames
      : pieces(whole.subarray(0, sent), Math.min(length, sent));
    return { chunks: chunks.filter(({ length }) => length > 0), expect, end };
  });
}
