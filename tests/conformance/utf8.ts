/** Group 6: UTF-8. The sequences are those of Markus Kuhn's stress test. */
import { Opcode } from "../../lib/core/mod.ts";
import { concat, hex, single, utf8 } from "../bytes.ts";
import {
  answers,
  close,
  fails,
  fragmented,
  type Payload,
  type Row,
  text,
  type Turn,
} from "./row.ts";

/** A Greek word whose characters have two and three bytes. */
const KOSME = hex("ce ba e1 bd b9 cf 83 ce bc ce b5");
const GREETING = "Hello-µ@ßöäüàá-UTF-8!!";
const SURROGATE = concat([KOSME, hex("ed a0 80"), utf8("edited")]);

function inFragments(id: string, title: string, payloads: readonly Payload[]): Row {
  const whole = concat(payloads.map((part) => typeof part === "string" ? utf8(part) : part));
  return answers(id, title, fragmented(Opcode.Text, payloads), [text(whole)]);
}

const VALID: readonly Row[] = [
  inFragments("6.1.1", "empty text", [""]),
  inFragments("6.1.2", "three empty fragments", ["", "", ""]),
  inFragments("6.1.3", "a fragment between empty ones", ["", "middle", ""]),
  inFragments("6.2.1", "characters of one and two bytes", [GREETING]),
  inFragments("6.2.2", "fragments cut between characters", ["Hello-µ@ßöä", "üàá-UTF-8!!"]),
  inFragments("6.2.3", "fragments of a byte", single(utf8(GREETING))),
  inFragments("6.2.4", "fragments of a byte, of longer characters", single(KOSME)),
];

const INVALID: readonly Row[] = [
  fails("6.3.1", "a surrogate", [text(SURROGATE)], 1007),
  fails(
    "6.3.2",
    "a surrogate in fragments of a byte",
    fragmented(Opcode.Text, single(SURROGATE)),
    1007,
  ),
];

/** U+110000. Its second byte, at offset 12, is the first one that no valid text has there. */
const BEYOND = concat([KOSME, hex("f4 90 80 80"), utf8("edited")]);

/** Three parts: a valid one, an invalid one, and one that is sent only after the Close frame. */
function failsFast(id: string, title: string, turns: readonly Turn[]): Row {
  return { id, title, turns, outcome: { clean: false, code: 1007 } };
}

function inThreeFrames(id: string, title: string, first: number, second: number): Row {
  const ends = [0, first, second, BEYOND.length];
  const [one, two, three] = fragmented(
    Opcode.Text,
    ends.slice(1).map((end, i) => BEYOND.subarray(ends[i], end)),
  );
  return failsFast(id, title, [
    { send: [one], expect: [] },
    { send: [two], expect: [close(1007)] },
    { send: [three], expect: [] },
  ]);
}

function inThreeChops(id: string, title: string, first: number, second: number): Row {
  return failsFast(id, title, [
    { send: [text(BEYOND)], holdBack: BEYOND.length - first, expect: [] },
    { send: [], holdBack: BEYOND.length - second, expect: [close(1007)] },
    { send: [], expect: [] },
  ]);
}

const FAIL_FAST: readonly Row[] = [
  inThreeFrames("6.4.1", "fails within the fragment that is invalid", 11, 15),
  inThreeFrames("6.4.2", "fails at the fragment of the impossible byte", 12, 13),
  inThreeChops("6.4.3", "fails within the chunk that is invalid", 11, 15),
  inThreeChops("6.4.4", "fails at the impossible byte within a frame", 12, 13),
];

/** A group of sequences as hexadecimal digits, valid and invalid ones. */
type Group = readonly [title: string, valid: readonly string[], invalid?: readonly string[]];

function range(from: number, to: number, after = ""): string {
  const bytes = Array.from({ length: to - from }, (_, i) => (from + i).toString(16));
  return bytes.map((byte) => byte + after).join("");
}

const CUT_OFF = [
  ...["c0", "e080", "f08080", "f8808080", "fc80808080"],
  ...["df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf"],
];

/** U+1FFFE, U+1FFFF, U+2FFFE and so on to U+10FFFF. */
const NONCHARACTERS = Array.from({ length: 16 }, (_, i) => (i + 1) * 0x10000)
  .flatMap((plane) => [plane + 0xfffe, plane + 0xffff])
  .map((point) => digits(utf8(String.fromCodePoint(point))));

function digits(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const ESCORTED = ["24", "c2a2", "e282ac", "f0a4ada2"].map((character) =>
  digits(utf8("hello")) + character + digits(utf8("world"))
);

/** Group 6.5 and later. The sequences of 6.6 are generated below. */
// deno-fmt-ignore
const SEQUENCES: readonly Group[] = [
  ["valid text", [...ESCORTED, digits(KOSME)]],
  ["prefixes of valid text", []],
  ["the first character of a length", ["00", "c280", "e0a080", "f0908080"]],
  ["the first of five and six bytes", [], ["f888808080", "fc8480808080"]],
  ["the last character of a length", ["7f", "dfbf", "efbfbf", "f48fbfbf"]],
  ["the last of four to six bytes", [], ["f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"]],
  ["other boundaries", ["ed9fbf", "ee8080", "efbfbd", "f48fbfbf"], ["f4908080"]],
  ["unexpected continuation bytes", [], [
    "80", "bf", "80bf", "80bf80", "80bf80bf", "80bf80bf80", "80bf80bf80bf", range(0x80, 0xbf),
  ]],
  ["lonely start bytes", [], [
    range(0xc0, 0xdf, "20"), range(0xe0, 0xef, "20"), range(0xf0, 0xf7, "20"),
    range(0xf8, 0xfb, "20"), range(0xfc, 0xfd, "20"),
  ]],
  ["without the last continuation byte", [], CUT_OFF],
  ["incomplete sequences in a row", [], [CUT_OFF.join("")]],
  ["impossible bytes", [], ["fe", "ff", "fefeffff"]],
  ["overlong ASCII", [], ["c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"]],
  ["the longest overlong sequences", [], [
    "c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf",
  ]],
  ["overlong NUL", [], ["c080", "e08080", "f0808080", "f880808080", "fc8080808080"]],
  ["single surrogates", [], [
    "eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf",
  ]],
  ["paired surrogates", [], ["eda080", "edadbf", "edae80", "edafbf"].flatMap((high) =>
    ["edb080", "edbfbf"].map((low) => high + low)
  )],
  ["noncharacters", ["efbfbe", "efbfbf", ...NONCHARACTERS]],
  ["specials", ["efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf"]],
];

/** The lengths of the prefixes of the Greek word that end between two characters. */
const WHOLE_PREFIXES = new Set([2, 5, 7, 9, 11]);
const PREFIXES: readonly Row[] = Array.from(
  KOSME,
  (_, i) => sequence(`6.6.${i + 1}`, "prefix", KOSME.subarray(0, i + 1), WHOLE_PREFIXES.has(i + 1)),
);

function sequence(id: string, title: string, payload: Uint8Array, valid: boolean): Row {
  const shown = digits(payload.subarray(0, 16)) + (payload.length > 16 ? "..." : "");
  return valid
    ? answers(id, `${title}: ${shown}`, [text(payload)], [text(payload)])
    : fails(id, `${title}: ${shown}`, [text(payload)], 1007);
}

const TABLE: readonly Row[] = SEQUENCES.flatMap(([title, valid, invalid = []], group) =>
  [...valid, ...invalid].map((payload, i) =>
    sequence(`6.${group + 5}.${i + 1}`, title, hex(payload), i < valid.length)
  )
);

/** Group 6: UTF-8. */
export const UTF8: readonly Row[] = [...VALID, ...INVALID, ...FAIL_FAST, ...TABLE, ...PREFIXES];
