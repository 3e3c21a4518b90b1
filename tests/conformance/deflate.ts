/**
 * Groups 12 and 13 of the Autobahn TestSuite: messages of five kinds and 18 sizes, echoed with different
 * settings of compression. The data is generated.
 */
import type { Message, PerMessageDeflateOptions } from "../../mod.ts";
import { utf8 } from "../bytes.ts";

/** One case. The end under test echoes messages. */
export interface DeflateRow {
  id: string;
  title: string;
  /** The length of a message, and the length of the pieces it is sent in. */
  size: number;
  fragment: number;
  /** The options of both ends. */
  options: PerMessageDeflateOptions;
  /** The message with this number. */
  message(i: number): Message;
}

/** Cases above this size run at one level only in CI. */
export const LARGE = 16384;

/** The length of a message, and the length of its fragments; 0 if it is not fragmented. */
const SIZES: readonly (readonly [size: number, fragment: number])[] = [
  ...[16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072].map((size) => [size, 0] as const),
  ...[8192, 16384, 32768, 65536, 131072].map((size) => [size, 256] as const),
  ...[1024, 4096, 32768].map((fragment) => [131072, fragment] as const),
];

/** A generator of pseudorandom numbers that are the same in every run. */
function random(seed: number): () => number {
  let state = (seed + 1) * 2654435761 >>> 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>>= 0) / 2 ** 32;
  };
}

const WORDS = ("the of and to in a that it was he for on with as at by from his they we say or " +
  "what their can if will each how them then many some would make like into time look write go " +
  "see number way could people my than first water been call who oil its now find long down day")
  .split(" ");

function repeatTo(size: number, next: () => string): string {
  let text = "";
  while (text.length < size) text += next();
  return text.slice(0, size);
}

function prose(size: number, seed: number): string {
  const value = random(seed);
  return repeatTo(
    size,
    () => WORDS[Math.floor(value() * WORDS.length)] + (value() < 0.1 ? ". " : " "),
  );
}

function json(size: number, seed: number): string {
  const value = random(seed);
  const item = () => ({
    id: Math.floor(value() * 1e6),
    name: WORDS[Math.floor(value() * WORDS.length)],
    on: value() < 0.5,
    at: value() * 180,
  });
  return repeatTo(size, () => `${JSON.stringify(item())},`);
}

function noise(size: number, seed: number): Uint8Array {
  const value = random(seed);
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = value() * 256;
  return bytes;
}

/** Prose, noise and zeros, in turn. */
function mixed(size: number, seed: number): Uint8Array {
  const third = Math.ceil(size / 3);
  const bytes = new Uint8Array(size);
  bytes.set(utf8(prose(Math.min(size, third), seed)));
  bytes.set(noise(Math.max(0, Math.min(third, size - third)), seed), Math.min(size, third));
  return bytes;
}

const made = new Map<string, Message>();

/** Returns three messages of a kind and size in turn: making one takes longer than sending it. */
function cached(
  name: string,
  make: (size: number, seed: number) => Message,
  size: number,
  i: number,
): Message {
  const key = `${name} ${size} ${i % 3}`;
  if (!made.has(key)) made.set(key, make(size, i % 3));
  return made.get(key)!;
}

const KINDS: readonly (readonly [name: string, make: (size: number, seed: number) => Message])[] = [
  ["text", prose],
  ["JSON", json],
  ["random", noise],
  ["repeated", (size, seed) => new Uint8Array(size).fill(seed)],
  ["mixed", mixed],
];

/** The settings of context takeover and window bits. 0 leaves the window bits out. */
const OFFERS: readonly (readonly [noTakeover: boolean, windowBits: number])[] = [
  [false, 0],
  [true, 0],
  [false, 9],
  [true, 9],
  [false, 15],
  [true, 15],
];

function optionsOf(noTakeover: boolean, windowBits: number): PerMessageDeflateOptions {
  const bits = windowBits === 0 ? undefined : windowBits;
  return {
    memory: "high",
    threshold: 0,
    clientNoContextTakeover: noTakeover,
    serverNoContextTakeover: noTakeover,
    clientMaxWindowBits: bits,
    serverMaxWindowBits: bits,
  };
}

function sizeTitle([size, fragment]: readonly [number, number]): string {
  return fragment === 0 ? `${size} bytes` : `${size} bytes in fragments of ${fragment}`;
}

const PAYLOADS: DeflateRow[] = KINDS.flatMap(([name, make], kind) =>
  SIZES.map((sizes, at) => ({
    id: `12.${kind + 1}.${at + 1}`,
    title: `${name}, ${sizeTitle(sizes)}`,
    size: sizes[0],
    fragment: sizes[1],
    options: optionsOf(false, 0),
    message: (i: number) => cached(name, make, sizes[0], i),
  }))
);

const PARAMETERS: DeflateRow[] = [
  ...OFFERS.map((offer) =>
    [`no takeover ${offer[0]}, bits ${offer[1]}`, optionsOf(...offer)] as const
  ),
  ["several offers", { ...optionsOf(false, 0), memory: "low" as const }] as const,
].flatMap(([name, options], offer) =>
  SIZES.map((sizes, at) => ({
    id: `13.${offer + 1}.${at + 1}`,
    title: `${name}, ${sizeTitle(sizes)}`,
    size: sizes[0],
    fragment: sizes[1],
    options,
    message: (i: number) => cached("JSON", json, sizes[0], i),
  }))
);

/** All rows of both groups. */
export const DEFLATE_ROWS: readonly DeflateRow[] = [...PAYLOADS, ...PARAMETERS];
