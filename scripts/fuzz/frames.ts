/** Makes streams of frames as a peer sends them, valid and nearly valid ones. */
import { encodeFrame, type Frame, Opcode, type Role } from "../../lib/core/mod.ts";
import { mutateBytes, type Random } from "./random.ts";

/** A frame, and how to encode it. */
interface Draft {
  fin: boolean;
  rsv: number;
  opcode: number;
  payload: Uint8Array;
  masked: boolean;
  /** The length to declare, if it differs from the length of the payload. */
  declared?: bigint;
  /** The number of length bytes, if it differs from the smallest number. */
  lengthBytes?: 0 | 2 | 8;
}

/** The expected result of a valid stream. */
export interface Said {
  /** The complete messages. */
  messages: (string | Uint8Array)[];
  /** The payloads of the pings. */
  pings: Uint8Array[];
  /** The code of the Close frame, if there is one. */
  closeCode: number | undefined;
}

/** Bytes, and their meaning, which is unknown after the bytes were changed. */
export interface FrameInput {
  bytes: Uint8Array;
  said?: Said;
}

const encoder = new TextEncoder();

const CHARACTERS = ["a", "\u00e9", "\u20ac", "\u{1f600}", "\0", "\ufeff", "\u07ff", "\uffff"];
const LENGTHS = [0, 1, 2, 3, 5, 20, 124, 125, 126, 127, 300, 5000, 65535, 65536];
const CLOSE_CODES = [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999];
const BAD_CLOSE_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535];
const BAD_UTF8 = [[0x80], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf4, 0x90], [0xf5], [0xff], [0xe2]];

/** Makes bytes for an end with this role. */
export function frameInput(random: Random, receiver: Role): FrameInput {
  const said: Said = { messages: [], pings: [], closeCode: undefined };
  const drafts = conversation(random, receiver === "server", said);
  if (random.once(4)) return { bytes: write(random, drafts), said };
  const mutations = 1 + random.below(3);
  for (let i = 0; i < mutations; i++) mutateFrames(random, drafts);
  const bytes = write(random, drafts);
  return { bytes: random.once(2) ? mutateBytes(random, bytes) : bytes };
}

function conversation(random: Random, masked: boolean, said: Said): Draft[] {
  const drafts: Draft[] = [];
  for (let count = random.below(6); count > 0; count--) addMessage(random, masked, drafts, said);
  addControls(random, masked, drafts, said);
  if (random.once(2)) {
    const payload = closePayload(random, said);
    drafts.push({ fin: true, rsv: 0, opcode: Opcode.Close, payload, masked });
  }
  return drafts;
}

function closePayload(random: Random, said: Said): Uint8Array {
  if (random.once(4)) {
    said.closeCode = 1005;
    return new Uint8Array(0);
  }
  said.closeCode = random.pick(CLOSE_CODES);
  const reason = encoder.encode(text(random, random.below(30)));
  return Uint8Array.from([said.closeCode >> 8, said.closeCode & 255, ...reason]);
}

function addMessage(random: Random, masked: boolean, drafts: Draft[], said: Said): void {
  // Long messages cost time that is better spent on short ones.
  const length = random.pick(random.once(50) ? LENGTHS : LENGTHS.slice(0, 10));
  const message = random.once(2) ? text(random, length) : random.bytes(length);
  said.messages.push(message);
  const payload = typeof message === "string" ? encoder.encode(message) : message;
  let opcode: number = typeof message === "string" ? Opcode.Text : Opcode.Binary;
  const ends = random.list(4, () => random.below(payload.length + 1)).sort((a, b) => a - b);
  let start = 0;
  for (const end of [...ends, payload.length]) {
    if (start > 0 || opcode === 0) addControls(random, masked, drafts, said);
    drafts.push({ fin: false, rsv: 0, opcode, payload: payload.subarray(start, end), masked });
    opcode = Opcode.Continuation;
    start = end;
  }
  drafts[drafts.length - 1].fin = true;
}

function addControls(random: Random, masked: boolean, drafts: Draft[], said: Said): void {
  if (!random.once(4)) return;
  for (let count = random.below(4); count > 0; count--) {
    const payload = random.bytes(random.pick([0, 1, 4, 125]));
    const opcode = random.pick([Opcode.Ping, Opcode.Pong]);
    if (opcode === Opcode.Ping) said.pings.push(payload);
    drafts.push({ fin: true, rsv: 0, opcode, payload, masked });
  }
}

function text(random: Random, length: number): string {
  let made = "";
  while (made.length < length) made += random.pick(CHARACTERS);
  return made;
}

/** The mistakes that a peer may make. */
const MUTATIONS: readonly ((draft: Draft, random: Random) => void)[] = [
  (draft) => draft.fin = !draft.fin,
  (draft, random) => draft.rsv = random.below(8),
  (draft, random) => draft.opcode = random.below(16),
  (draft, random) => draft.opcode = random.pick([0, 1, 2, 8, 9, 10]),
  (draft) => draft.masked = !draft.masked,
  (draft, random) => draft.lengthBytes = random.pick([0, 2, 8]),
  (draft, random) => draft.declared = BigInt(random.pick(LENGTHS)),
  (draft, random) => {
    draft.declared = 2n ** BigInt(random.below(65)) - BigInt(random.below(2));
  },
  (draft, random) => {
    const at = random.below(draft.payload.length + 1);
    draft.payload = joined([
      draft.payload.subarray(0, at),
      Uint8Array.from(random.pick(BAD_UTF8)),
      draft.payload.subarray(at),
    ]);
  },
  (draft, random) => {
    const code = random.pick(BAD_CLOSE_CODES);
    draft.opcode = Opcode.Close;
    draft.payload = Uint8Array.from([code >> 8, code & 255, 97]).subarray(0, 1 + random.below(3));
  },
  (draft, random) => draft.payload = random.bytes(random.pick([126, 127, 200])),
];

function mutateFrames(random: Random, drafts: Draft[]): void {
  const at = random.below(drafts.length + 1);
  const draft = drafts[at];
  switch (draft === undefined ? 0 : random.below(6)) {
    case 0: {
      const payload = random.bytes(random.below(10));
      const masked = drafts[0]?.masked ?? random.once(2);
      const opcode = random.below(16);
      drafts.splice(at, 0, { fin: !random.once(4), rsv: 0, opcode, payload, masked });
      break;
    }
    case 1:
      drafts.splice(at, 1);
      break;
    case 2:
      drafts.splice(random.below(drafts.length + 1), 0, { ...draft });
      break;
    default:
      random.pick(MUTATIONS)(draft, random);
  }
}

function write(random: Random, drafts: readonly Draft[]): Uint8Array {
  return joined(drafts.map((draft) => encode(random, draft)));
}

function encode(random: Random, draft: Draft): Uint8Array {
  const { fin, rsv, opcode, payload, masked, declared, lengthBytes } = draft;
  const key = random.bytes(4);
  const plain = declared === undefined && lengthBytes === undefined;
  if (plain && rsv === 0 && opcode in KNOWN && (opcode < 8 || (fin && payload.length <= 125))) {
    const frame: Frame = { fin, opcode: opcode as Opcode, payload };
    return encodeFrame(frame, masked ? { mask: key } : {});
  }
  const length = declared ?? BigInt(payload.length);
  const size = lengthBytes ?? (length < 126n ? 0 : length < 65536n ? 2 : 8);
  const field = size === 0 ? Number(length & 127n) : size === 2 ? 126 : 127;
  const head = [(fin ? 128 : 0) | (rsv << 4) | opcode, (masked ? 128 : 0) | field];
  for (let i = size - 1; i >= 0; i--) head.push(Number((length >> BigInt(8 * i)) & 255n));
  if (!masked) return joined([Uint8Array.from(head), payload]);
  return joined([Uint8Array.from(head), key, payload.map((byte, i) => byte ^ key[i & 3])]);
}

const KNOWN: Record<number, true> = { 0: true, 1: true, 2: true, 8: true, 9: true, 10: true };

/** Joins the pieces. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
