/** Frames and malformed headers, for the tests of everything that reads or writes frames. */
import type { Opcode, Role } from "../lib/core/mod.ts";
import { concat, hex, pattern } from "./bytes.ts";

/** A frame, as fields and as bytes. */
export interface FrameRow {
  title: string;
  fin: boolean;
  rsv: number;
  opcode: Opcode;
  payload: Uint8Array;
  /** The frame as a server sends it. */
  unmasked: Uint8Array;
  key: Uint8Array;
  /** The frame as a client sends it. */
  masked: Uint8Array;
}

/** The key of the examples in RFC 6455 §5.7. */
const KEY = "37 fa 21 3d";

function row(
  title: string,
  [fin, rsv, opcode]: [fin: boolean, rsv: number, opcode: Opcode],
  payload: Uint8Array,
  [header, maskedHeader, maskedPayload]: [string, string, string?],
): FrameRow {
  const key = hex(KEY);
  const masked = maskedPayload === undefined
    ? payload.map((byte, i) => byte ^ key[i % 4])
    : hex(maskedPayload);
  return {
    title,
    fin,
    rsv,
    opcode,
    payload,
    unmasked: concat([hex(header), payload]),
    key,
    masked: concat([hex(maskedHeader), key, masked]),
  };
}

const HELLO = hex("48 65 6c 6c 6f");

/** Valid frames. The payload of the masked form is written out if it is short. */
// deno-fmt-ignore
export const FRAMES: readonly FrameRow[] = [
  // RFC 6455 §5.7
  row("text Hello", [true, 0, 1], HELLO, ["81 05", "81 85", "7f 9f 4d 51 58"]),
  row("fragment Hel", [false, 0, 1], hex("48 65 6c"), ["01 03", "01 83", "7f 9f 4d"]),
  row("fragment lo", [true, 0, 0], hex("6c 6f"), ["80 02", "80 82", "5b 95"]),
  row("ping Hello", [true, 0, 9], HELLO, ["89 05", "89 85", "7f 9f 4d 51 58"]),
  row("pong Hello", [true, 0, 10], HELLO, ["8a 05", "8a 85", "7f 9f 4d 51 58"]),
  row("binary of 256 bytes", [true, 0, 2], pattern(256), ["82 7e 01 00", "82 fe 01 00"]),
  row("binary of 64 KiB", [true, 0, 2], pattern(65536),
    ["82 7f 00 00 00 00 00 01 00 00", "82 ff 00 00 00 00 00 01 00 00"]),
  // Lengths around the limits of the three forms
  row("empty text", [true, 0, 1], hex(""), ["81 00", "81 80", ""]),
  row("binary of 1 byte", [true, 0, 2], hex("ff"), ["82 01", "82 81", "c8"]),
  row("binary of 125 bytes", [true, 0, 2], pattern(125), ["82 7d", "82 fd"]),
  row("binary of 126 bytes", [true, 0, 2], pattern(126), ["82 7e 00 7e", "82 fe 00 7e"]),
  row("binary of 127 bytes", [true, 0, 2], pattern(127), ["82 7e 00 7f", "82 fe 00 7f"]),
  row("binary of 128 bytes", [true, 0, 2], pattern(128), ["82 7e 00 80", "82 fe 00 80"]),
  row("binary of 65535 bytes", [true, 0, 2], pattern(65535), ["82 7e ff ff", "82 fe ff ff"]),
  // Control frames
  row("empty close", [true, 0, 8], hex(""), ["88 00", "88 80", ""]),
  row("close 1000", [true, 0, 8], hex("03 e8"), ["88 02", "88 82", "34 12"]),
  row("empty ping", [true, 0, 9], hex(""), ["89 00", "89 80", ""]),
  row("ping of 125 bytes", [true, 0, 9], pattern(125), ["89 7d", "89 fd"]),
  // Fragments and reserved bits
  row("empty first fragment", [false, 0, 2], hex(""), ["02 00", "02 80", ""]),
  row("empty middle fragment", [false, 0, 0], hex(""), ["00 00", "00 80", ""]),
  row("empty last fragment", [true, 0, 0], hex(""), ["80 00", "80 80", ""]),
  row("text with RSV1", [true, 4, 1], HELLO, ["c1 05", "c1 85", "7f 9f 4d 51 58"]),
  row("text with RSV2", [true, 2, 1], HELLO, ["a1 05", "a1 85", "7f 9f 4d 51 58"]),
  row("text with RSV3", [true, 1, 1], HELLO, ["91 05", "91 85", "7f 9f 4d 51 58"]),
];

/** Headers of binary frames whose payload is too long for a test, without the masking key. */
export const LONG_HEADERS: readonly { length: number; unmasked: string; masked: string }[] = [
  {
    length: 2 ** 32 - 1,
    unmasked: "82 7f 00 00 00 00 ff ff ff ff",
    masked: "82 ff 00 00 00 00 ff ff ff ff",
  },
  {
    length: 2 ** 32,
    unmasked: "82 7f 00 00 00 01 00 00 00 00",
    masked: "82 ff 00 00 00 01 00 00 00 00",
  },
  {
    length: 2 ** 53 - 1,
    unmasked: "82 7f 00 1f ff ff ff ff ff ff",
    masked: "82 ff 00 1f ff ff ff ff ff ff",
  },
];

/** A header that is refused. */
export interface MalformedRow {
  title: string;
  /** The role of the receiver. */
  role: Role;
  /** The bytes of the header. The last byte is the first one that makes the decoder fail. */
  bytes: string;
  closeCode: number;
  message: string;
  /** The options of the decoder. */
  options?: { maxFrameSize?: number; rsvInUse?: number };
}

function violation(title: string, role: Role, bytes: string, message: string): MalformedRow {
  return { title, role, bytes, closeCode: 1002, message };
}

function reserved(bytes: string, rsv: number, rsvInUse = 0): MalformedRow {
  const message = `The frame has reserved bits that no agreed extension uses (RSV ${rsv})`;
  const title = `reserved bits ${rsv} where ${rsvInUse} is in use`;
  return { ...violation(title, "client", bytes, message), options: { rsvInUse } };
}

function unknown(opcode: number): MalformedRow {
  const first = (0x80 | opcode).toString(16);
  const message = `The frame has the unknown opcode ${opcode}`;
  return violation(`opcode ${opcode}`, "client", `${first} 00`, message);
}

function tooLong(title: string, bytes: string, role: Role = "client"): MalformedRow {
  const message = "The control frame is longer than 125 bytes";
  return violation(title, role, bytes, message);
}

function fragmented(title: string, bytes: string): MalformedRow {
  const message = "The control frame is fragmented";
  return violation(title, "client", bytes, message);
}

function notMinimal(length: number, width: number, bytes: string): MalformedRow {
  const message = `The frame has its length ${length} in ${width} bytes, more than it needs`;
  const role = bytes.startsWith("82 7") ? "client" : "server";
  return violation(`length ${length} in ${width} bytes`, role, bytes, message);
}

function beyond53(title: string, bytes: string): MalformedRow {
  const message = "The frame has a length of 2^53 bytes or more, which is not supported";
  return { title, role: "client", bytes, closeCode: 1009, message };
}

function overLimit(maxFrameSize: number, length: number, bytes: string): MalformedRow {
  return {
    title: `${length} bytes where ${maxFrameSize} are allowed`,
    role: "client",
    bytes,
    closeCode: 1009,
    message: `Frame of ${length} bytes exceeds maxFrameSize (${maxFrameSize})`,
    options: { maxFrameSize },
  };
}

const TOP_BIT = "The frame has a length of 2^63 bytes or more";

// deno-fmt-ignore
export const MALFORMED: readonly MalformedRow[] = [
  reserved("c1 00", 4),
  reserved("a1 00", 2),
  reserved("91 00", 1),
  reserved("f1 00", 7),
  reserved("a1 00", 2, 4),
  reserved("e1 00", 6, 4),
  reserved("c0 00", 4),
  { ...violation("a ping with a reserved bit that is in use", "client", "c9 00",
      "The control frame has reserved bits (RSV 4)"), options: { rsvInUse: 4 } },
  ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(unknown),
  tooLong("a close of 126 bytes or more", "88 7e"),
  tooLong("a ping of 126 bytes or more", "89 7e"),
  tooLong("a pong of 64 KiB or more", "8a 7f"),
  tooLong("a masked ping of 126 bytes or more", "89 fe", "server"),
  fragmented("a fragmented close", "08 00"),
  fragmented("a fragmented ping", "09 00"),
  fragmented("a fragmented pong", "0a 00"),
  violation("an unmasked frame from a client", "server", "81 00",
    "The frame of the client is not masked"),
  violation("an unmasked frame with a long length from a client", "server", "82 7f",
    "The frame of the client is not masked"),
  violation("an unmasked ping from a client", "server", "89 00",
    "The frame of the client is not masked"),
  violation("a masked frame from a server", "client", "81 80",
    "The frame of the server is masked"),
  violation("a masked close from a server", "client", "88 82",
    "The frame of the server is masked"),
  notMinimal(0, 2, "82 7e 00 00"),
  notMinimal(125, 2, "82 7e 00 7d"),
  notMinimal(125, 2, "82 fe 00 7d 01 02 03 04"),
  notMinimal(0, 8, "82 7f 00 00 00 00 00 00 00 00"),
  notMinimal(125, 8, "82 7f 00 00 00 00 00 00 00 7d"),
  notMinimal(126, 8, "82 7f 00 00 00 00 00 00 00 7e"),
  notMinimal(65535, 8, "82 7f 00 00 00 00 00 00 ff ff"),
  notMinimal(65535, 8, "82 ff 00 00 00 00 00 00 ff ff 01 02 03 04"),
  violation("a length of 2^63", "client", "82 7f 80 00 00 00 00 00 00 00", TOP_BIT),
  violation("a length of 2^63 + 1", "client", "82 7f 80 00 00 00 00 00 00 01", TOP_BIT),
  violation("a length of 2^64 - 1", "client", "82 7f ff ff ff ff ff ff ff ff", TOP_BIT),
  beyond53("a length of 2^53", "82 7f 00 20 00 00 00 00 00 00"),
  beyond53("a length of 2^53 + 1", "82 7f 00 20 00 00 00 00 00 01"),
  beyond53("a length of 2^63 - 1", "82 7f 7f ff ff ff ff ff ff ff"),
  overLimit(0, 1, "82 01"),
  overLimit(10, 11, "82 0b"),
  overLimit(125, 126, "82 7e 00 7e"),
  overLimit(2 ** 20, 2 ** 32, "82 7f 00 00 00 01 00 00 00 00"),
];
