/** What a conformance row is made of, and how its frames become bytes. */
import { Opcode, type Role } from "../../lib/core/mod.ts";
import { concat, hex, utf8 } from "../bytes.ts";

/** A frame as the peer sends it; what is left out is as the protocol has it. */
export interface PeerFrame {
  opcode: number;
  payload: Uint8Array;
  fin?: boolean;
  rsv?: number;
  /** Masked where it must not be, and the reverse. */
  wrongMask?: boolean;
  /** The length that the header declares, in place of the payload's. */
  declared?: bigint;
  /** In how many bytes it stands, in place of the fewest. */
  lengthBytes?: 0 | 2 | 8;
}

/** A frame that comes back: whole, without reserved bits. */
export interface Answer {
  opcode: Opcode;
  payload: Uint8Array;
}

/** What the peer sends, and what comes back before its next turn. */
export interface Turn {
  send: readonly PeerFrame[];
  /** How the bytes are cut: into pieces of a length, or between frames. Default: one piece */
  chop?: number | "frames";
  /** How many of the last bytes are not sent before the next turn, or never. Default: 0 */
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

/** One case. The end under test is an echo. */
export interface Row {
  id: string;
  title: string;
  turns: readonly Turn[];
  outcome: Outcome;
  /** Whether an echo may stay out that had no time to leave before the Close. */
  mayLose?: boolean;
}

// Frames

/** A payload: text stands for its UTF-8. */
export type Payload = string | Uint8Array;

type Variation = Omit<Partial<PeerFrame>, "opcode" | "payload">;

/** A frame of any opcode. */
export function frame(opcode: number, payload: Payload = "", variation: Variation = {}): PeerFrame {
  return { opcode, payload: bytesOf(payload), ...variation };
}

/** A frame that begins a text message, by default all of it. */
export function text(payload: Payload = "", variation?: Variation): PeerFrame & Answer {
  return { ...frame(Opcode.Text, payload, variation), opcode: Opcode.Text };
}

/** A frame that begins a binary message, by default all of it. */
export function binary(payload: Payload = "", variation?: Variation): PeerFrame & Answer {
  return { ...frame(Opcode.Binary, payload, variation), opcode: Opcode.Binary };
}

/** A continuation, by default the last. */
export function continuation(payload: Payload = "", variation?: Variation): PeerFrame {
  return frame(Opcode.Continuation, payload, variation);
}

/** A ping. */
export function ping(payload: Payload = ""): PeerFrame {
  return frame(Opcode.Ping, payload);
}

/** A pong. */
export function pong(payload: Payload = ""): PeerFrame & Answer {
  return { opcode: Opcode.Pong, payload: bytesOf(payload) };
}

/** A Close; without a code it is empty. */
export function close(code?: number, reason: Payload = ""): PeerFrame & Answer {
  const payload = code === undefined
    ? new Uint8Array(0)
    : concat([Uint8Array.of(code >> 8, code & 0xff), bytesOf(reason)]);
  return { opcode: Opcode.Close, payload };
}

/** Not the last frame of its message. */
export const MORE: Variation = { fin: false };

/** A message in frames of the given payloads. */
export function fragmented(
  opcode: typeof Opcode.Text | typeof Opcode.Binary,
  payloads: readonly Payload[],
): PeerFrame[] {
  return payloads.map((payload, i) =>
    frame(i === 0 ? opcode : Opcode.Continuation, payload, { fin: i === payloads.length - 1 })
  );
}

/** The bytes in pieces of a length. */
export function pieces(bytes: Uint8Array, length: number): Uint8Array[] {
  const count = Math.ceil(bytes.length / length);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * length, (i + 1) * length));
}

function bytesOf(payload: Payload): Uint8Array {
  return typeof payload === "string" ? utf8(payload) : payload;
}

// Rows

interface RowOptions {
  /** What comes back first. Default: nothing */
  before?: readonly Answer[];
  chop?: Turn["chop"];
}

/** A row whose frames call forth the given answers; the peer then closes with 1000. */
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

/** A row whose last valid frame is a Close, which is answered with the same. */
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

/** A row that fails the connection with the code. */
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

/** The frame as the peer of this role sends it. */
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

/** The bytes of one turn, cut as they are sent. */
export interface Script {
  chunks: Uint8Array[];
  expect: readonly Answer[];
  end: boolean;
}

/**
 * The row's turns as bytes.
 *
 * @param rechop how to cut them, whatever the row says
 */
export function scripts({ turns }: Row, peer: Role, rechop?: number): Script[] {
  let held = new Uint8Array(0);
  return turns.map(({ send, chop = Infinity, holdBack = 0, expect, end = false }) => {
    const frames = [held, ...send.map((frame) => encode(frame, peer))];
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
