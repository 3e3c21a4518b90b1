/** Groups 1 to 5: messages, pings, reserved bits, opcodes, fragments. */
import { Opcode, Rsv } from "../../lib/core/mod.ts";
import { hex, pattern } from "../bytes.ts";
import {
  type Answer,
  answers,
  binary,
  close,
  continuation,
  converses,
  fails,
  fragmented,
  frame,
  MORE,
  type PeerFrame,
  ping,
  pong,
  type Row,
  text,
  type Turn,
} from "./row.ts";

type Chop = Turn["chop"];

/** The three ways to cut the frames of a row. Each has an id. */
const CHOPS: readonly [title: string, chop: Chop][] = [
  ["at once", undefined],
  ["a frame at a time", "frames"],
  ["a byte at a time", 1],
];

const SIZES: readonly [size: number, chop?: number][] = [
  [0],
  [125],
  [126],
  [127],
  [128],
  [65535],
  [65536],
  [65536, 997],
];

/** Group 1: one message of each size. */
const MESSAGES: readonly Row[] = SIZES.flatMap(([size, chop], i) => {
  const title = (type: string) =>
    `${type} of ${size} bytes` + (chop === undefined ? "" : ` in chunks of ${chop}`);
  const asText = text("*".repeat(size));
  const asBinary = binary(pattern(size));
  return [
    answers(`1.1.${i + 1}`, title("text"), [asText], [asText], chop),
    answers(`1.2.${i + 1}`, title("binary"), [asBinary], [asBinary], chop),
  ];
});

const TEN = Array.from({ length: 10 }, (_, i) => `payload-${i}`);
const BYTES = hex("00 ff fe fd fc fb 00 ff");

/** Group 2: pings and pongs. */
const PINGS: readonly Row[] = [
  answers("2.1", "an empty ping", [ping()], [pong()]),
  answers("2.2", "a ping of text", [ping("Hello, world!")], [pong("Hello, world!")]),
  answers("2.3", "a ping of bytes that are not UTF-8", [ping(BYTES)], [pong(BYTES)]),
  answers("2.4", "a ping of 125 bytes", [ping(pattern(125))], [pong(pattern(125))]),
  fails("2.5", "a ping of 126 bytes", [ping(pattern(126))], 1002),
  answers("2.6", "a ping a byte at a time", [ping(pattern(125))], [pong(pattern(125))], 1),
  answers("2.7", "an empty pong that nobody asked for", [pong()], []),
  answers("2.8", "a pong that nobody asked for", [pong("unsolicited")], []),
  answers("2.9", "a pong, then a ping", [pong("unsolicited"), ping("asked")], [pong("asked")]),
  answers("2.10", "ten pings", TEN.map(ping), TEN.map(pong)),
  answers("2.11", "ten pings a byte at a time", TEN.map(ping), TEN.map(pong), 1),
];

const { Rsv1, Rsv2, Rsv3 } = Rsv;
const HELLO = text("Hello, world!");
const PING = ping("never answered");

/** A message, then a violation of the protocol, then a ping. */
function failsAfterEcho(id: string, title: string, wrong: PeerFrame, chop?: Chop): Row {
  const options = { before: [HELLO], chop };
  return fails(id, `a message, then ${title}`, [HELLO, wrong, PING], 1002, options);
}

function reserved(rsv: number): PeerFrame {
  return text("Hello, world!", { rsv });
}

/** Group 3: reserved bits. */
const RESERVED_BITS: readonly Row[] = [
  fails("3.1", "text with RSV 1", [reserved(Rsv3)], 1002),
  failsAfterEcho("3.2", "one with RSV 2", reserved(Rsv2)),
  failsAfterEcho("3.3", "one with RSV 3, a frame at a time", reserved(Rsv2 | Rsv3), "frames"),
  failsAfterEcho("3.4", "one with RSV 4, a byte at a time", reserved(Rsv1), 1),
  fails("3.5", "binary with RSV 5", [binary(BYTES, { rsv: Rsv1 | Rsv3 })], 1002),
  fails("3.6", "a ping with RSV 6", [{ ...PING, rsv: Rsv1 | Rsv2 }], 1002),
  fails("3.7", "a Close with RSV 7", [{ ...close(1000), rsv: 7 }], 1002),
];

/** Group 4: reserved opcodes. `first` is the first one of five. */
function opcodes(group: string, first: number): Row[] {
  return [
    fails(`${group}.1`, `opcode ${first}`, [frame(first)], 1002),
    fails(`${group}.2`, `opcode ${first + 1}`, [frame(first + 1, "payload")], 1002),
    failsAfterEcho(`${group}.3`, `opcode ${first + 2}`, frame(first + 2)),
    failsAfterEcho(`${group}.4`, `opcode ${first + 3}`, frame(first + 3, "payload")),
    failsAfterEcho(
      `${group}.5`,
      `opcode ${first + 4}, a byte at a time`,
      frame(first + 4, "payload"),
      1,
    ),
  ];
}

const HALVES = fragmented(Opcode.Text, ["fragment1", "fragment2"]);
const WHOLE = text("fragment1fragment2");
const ORPHAN = continuation("orphan");
const OPEN_ORPHAN = continuation("orphan", MORE);

function inEachChop(
  first: number,
  title: string,
  row: (id: string, title: string, chop: Chop) => Row,
): Row[] {
  return CHOPS.map(([how, chop], i) => row(`5.${first + i}`, `${title}, ${how}`, chop));
}

function conversation(id: string, title: string, chop?: Chop): Row {
  const [one, two, three, four, five] = fragmented(Opcode.Text, [..."12345"]);
  const turns: { send: PeerFrame[]; expect: Answer[] }[] = [
    { send: [one, two, ping("first")], expect: [pong("first")] },
    { send: [three, four, ping("second"), five], expect: [pong("second"), text("12345")] },
  ];
  return converses(id, title, turns.map((turn) => ({ ...turn, chop })));
}

/** Group 5: fragments. */
const FRAGMENTS: readonly Row[] = [
  fails("5.1", "a ping in two fragments", [{ ...ping("a"), fin: false }, continuation("b")], 1002),
  fails("5.2", "a pong in two fragments", [{ ...pong("a"), fin: false }, continuation("b")], 1002),
  ...inEachChop(
    3,
    "text in two fragments",
    (id, title, chop) => answers(id, title, HALVES, [WHOLE], chop),
  ),
  ...inEachChop(6, "a ping between fragments", (id, title, chop) => {
    const send = [HALVES[0], ping("between"), HALVES[1]];
    return answers(id, title, send, [pong("between"), WHOLE], chop);
  }),
  ...inEachChop(
    9,
    "a continuation of nothing",
    (id, title, chop) => fails(id, title, [ORPHAN, HELLO], 1002, { chop }),
  ),
  ...inEachChop(
    12,
    "an unfinished continuation of nothing",
    (id, title, chop) => fails(id, title, [OPEN_ORPHAN, HELLO], 1002, { chop }),
  ),
  fails(
    "5.15",
    "a message, then an unfinished continuation",
    [...HALVES, OPEN_ORPHAN, HELLO],
    1002,
    {
      before: [WHOLE],
    },
  ),
  fails("5.16", "unfinished continuations before messages", [
    OPEN_ORPHAN,
    HELLO,
    OPEN_ORPHAN,
    HELLO,
  ], 1002),
  fails("5.17", "continuations before messages", [ORPHAN, HELLO, ORPHAN, HELLO], 1002),
  fails("5.18", "both fragments with the opcode of text", [
    HALVES[0],
    text("fragment2"),
  ], 1002),
  conversation("5.19", "pings between five fragments"),
  conversation("5.20", "pings between five fragments, a frame at a time", "frames"),
];

export const FRAMING: readonly Row[] = [
  ...MESSAGES,
  ...PINGS,
  ...RESERVED_BITS,
  ...opcodes("4.1", 3),
  ...opcodes("4.2", 11),
  ...FRAGMENTS,
];
