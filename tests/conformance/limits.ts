/** Group 9 with smaller messages, group 10, and lengths and masks that are not allowed. */
import { Opcode } from "../../lib/core/mod.ts";
import { pattern } from "../bytes.ts";
import {
  answers,
  binary,
  close,
  continuation,
  converses,
  fails,
  fragmented,
  MORE,
  type PeerFrame,
  pieces,
  ping,
  type Row,
  text,
} from "./row.ts";

const KIB = 1024;
/** The default limit on the size of a message. */
const MIB = KIB * KIB;

const BYTES = pattern(MIB);
/** ASCII text whose letters depend on their position. */
const LETTERS = BYTES.map((byte) => 0x20 + byte % 95);
const TYPES = [
  { type: "text", opcode: Opcode.Text, frame: text, data: LETTERS },
  { type: "binary", opcode: Opcode.Binary, frame: binary, data: BYTES },
] as const;

const SIZES = [16 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB];
const FRAGMENTED = 256 * KIB;
const FRAGMENT_SIZES = [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 128 * KIB, 256 * KIB];
const CHOP_SIZES = [64, 128, 256, 512, KIB, 2 * KIB];
const ROUND_TRIPS = 100;
const TRIP_SIZES = [0, 16, 64, 256, KIB, 4 * KIB];

const SHRUNK: readonly Row[] = TYPES.flatMap(({ type, opcode, frame, data }, i) => {
  const fragments = (id: string, title: string, size: number, length: number) => {
    const send = fragmented(opcode, pieces(data.subarray(0, size), length));
    return answers(id, title, send, [frame(data.subarray(0, size))]);
  };
  return [
    ...SIZES.map((size, n) => {
      const message = frame(data.subarray(0, size));
      return answers(`9.${1 + i}.${n + 1}`, `${type} of ${size} bytes`, [message], [message]);
    }),
    ...FRAGMENT_SIZES.map((length, n) =>
      fragments(`9.${3 + i}.${n + 1}`, `${type} in fragments of ${length}`, FRAGMENTED, length)
    ),
    fragments(`9.${3 + i}.9`, `${type} in 65536 fragments`, 65536, 1),
    ...CHOP_SIZES.map((chop, n) => {
      const message = frame(data.subarray(0, 128 * KIB));
      return answers(
        `9.${5 + i}.${n + 1}`,
        `${type} in chunks of ${chop}`,
        [message],
        [message],
        chop,
      );
    }),
    ...TRIP_SIZES.map((size, n) => {
      const message = frame(data.subarray(0, size));
      const turn = { send: [message], expect: [message] };
      const title = `${ROUND_TRIPS} round trips of ${size} bytes of ${type}`;
      return converses(`9.${7 + i}.${n + 1}`, title, Array(ROUND_TRIPS).fill(turn));
    }),
  ];
});

const FRAMED: readonly Row[] = [
  answers(
    "10.1.1",
    "text of 65536 bytes in fragments of 1300",
    fragmented(Opcode.Text, pieces(LETTERS.subarray(0, 65536), 1300)),
    [text(LETTERS.subarray(0, 65536))],
  ),
];

/** A header that declares this length. No byte of the payload is sent. */
function declares(length: bigint): PeerFrame {
  return binary("", { declared: length, lengthBytes: 8 });
}

const NOT_MINIMAL: readonly [length: number, lengthBytes: 2 | 8][] = [
  [0, 2],
  [1, 2],
  [125, 2],
  [0, 8],
  [125, 8],
  [126, 8],
  [65535, 8],
];

const HELLO = text("Hello");

const LENGTHS: readonly Row[] = [
  ...NOT_MINIMAL.map(([length, lengthBytes], i) =>
    fails(
      `lengths.1.${i + 1}`,
      `length ${length} in ${lengthBytes} bytes`,
      [
        HELLO,
        binary(pattern(length), { lengthBytes }),
      ],
      1002,
      { before: [HELLO] },
    )
  ),
  fails("lengths.2.1", "length 2^63", [HELLO, declares(2n ** 63n)], 1002, { before: [HELLO] }),
  fails("lengths.2.2", "length 2^64 - 1", [HELLO, declares(2n ** 64n - 1n)], 1002, {
    before: [HELLO],
  }),
  fails("lengths.3.1", "length 2^63 - 1", [declares(2n ** 63n - 1n)], 1009),
  fails("lengths.3.2", "length 2^53", [declares(2n ** 53n)], 1009),
  fails("lengths.3.3", "length 2^53 - 1", [declares(2n ** 53n - 1n)], 1009),
  fails("lengths.3.4", "length 2^32", [HELLO, declares(2n ** 32n)], 1009, { before: [HELLO] }),
  fails(
    "lengths.3.5",
    "a message over the limit, on its header",
    [declares(BigInt(MIB) + 1n)],
    1009,
  ),
  fails("lengths.3.6", "fragments over the limit, on the last header", [
    binary(BYTES, MORE),
    continuation("", { declared: 1n, lengthBytes: 0 }),
  ], 1009),
  fails(
    "lengths.4.1",
    "a ping with its length in 2 bytes",
    [{ ...ping("a"), lengthBytes: 2 }],
    1002,
  ),
  fails(
    "lengths.4.2",
    "a Close with its length in 8 bytes",
    [{ ...close(1000), lengthBytes: 8 }],
    1002,
  ),
];

function wronglyMasked(frame: PeerFrame): PeerFrame {
  return { ...frame, wrongMask: true };
}

/** Frames without a mask from a client, and with a mask from a server. */
const MASKING: readonly Row[] = [
  fails("masking.1", "text with the wrong masking", [wronglyMasked(HELLO)], 1002),
  fails("masking.2", "empty text with the wrong masking", [wronglyMasked(text())], 1002),
  fails("masking.3", "a ping with the wrong masking", [wronglyMasked(ping("a"))], 1002),
  fails("masking.4", "a Close with the wrong masking", [wronglyMasked(close(1000))], 1002),
  fails("masking.5", "a continuation with the wrong masking", [
    text("a", MORE),
    wronglyMasked(continuation("b")),
  ], 1002),
  fails(
    "masking.6",
    "a message, then one with the wrong masking",
    [HELLO, wronglyMasked(HELLO)],
    1002,
    {
      before: [HELLO],
    },
  ),
  fails("masking.7", "the wrong masking, a byte at a time", [wronglyMasked(HELLO)], 1002, {
    chop: 1,
  }),
];

/** Groups 9 and 10, lengths and masking. */
export const LIMITS: readonly Row[] = [...SHRUNK, ...FRAMED, ...LENGTHS, ...MASKING];
