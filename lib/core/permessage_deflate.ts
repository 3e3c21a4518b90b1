/**
 * What two ends agree on to compress their messages (RFC 7692 §7.1).
 *
 * @module
 */
import type { DeflateEngine } from "./deflate.ts";
import { DeflateExtension } from "./deflate_extension.ts";
import { HandshakeError } from "./error.ts";
import type { Extension, ExtensionFactory, ExtensionParameters } from "./extension.ts";
import type { Role } from "./frame.ts";
import { checkKnown, type OptionNames } from "./options.ts";

/**
 * How messages are compressed. `memory` sets the others, each of which may be given in its place: what
 * stands here by itself is a demand, without which the peer's offer or answer is refused; what comes
 * from `memory` is a wish.
 */
export interface PerMessageDeflateOptions {
  /**
   * How much memory a connection may hold. "high": windows of 32 KiB and `memLevel` 8, about 270 KiB.
   * "balanced": windows of 4 KiB and `memLevel` 5, 60 to 130 KiB, for a few percent less compression.
   * "low": as that, but each message is compressed by itself, and nothing is held between messages.
   * Default: "balanced"
   */
  memory?: "low" | "balanced" | "high";
  /** The effort, 0 to 9, or -1 for zlib's default, which is 6. Default: -1 */
  level?: number;
  /** How much memory the compressor may take beside its window, 1 to 9: 2^(memLevel + 9) bytes. */
  memLevel?: number;
  /**
   * Messages below this many bytes are sent as they are: a packet does not get fewer by them. Those sent
   * piece by piece are compressed. Default: 1024
   */
  threshold?: number;
  /** Whether the client compresses each message by itself (RFC 7692 §7.1.1.2). */
  clientNoContextTakeover?: boolean;
  /** Whether the server compresses each message by itself (RFC 7692 §7.1.1.1). */
  serverNoContextTakeover?: boolean;
  /**
   * The base-2 logarithm of the client's window at the most, 8 to 15 (RFC 7692 §7.1.2.2). A client that
   * is not given it leaves the value to the server, and takes the smaller one of the server's and that of
   * `memory`; given 8 to 14 it offers this value, which some servers decline.
   */
  clientMaxWindowBits?: number;
  /** The base-2 logarithm of the server's window at the most, 8 to 15 (RFC 7692 §7.1.2.1). */
  serverMaxWindowBits?: number;
}

/** What {@linkcode PerMessageDeflate} needs beside its options. */
export interface PerMessageDeflateInit extends PerMessageDeflateOptions {
  /** What compresses. */
  engine: DeflateEngine;
  /**
   * The limit of a message in bytes, for an engine that inflates a message as a whole; that each
   * message is within it is checked elsewhere. Default: Infinity
   */
  maxMessageSize?: number;
}

/** The options of {@linkcode PerMessageDeflate}. */
export const DEFLATE_OPTIONS: OptionNames<PerMessageDeflateOptions> = {
  memory: true,
  level: true,
  memLevel: true,
  threshold: true,
  clientNoContextTakeover: true,
  serverNoContextTakeover: true,
  clientMaxWindowBits: true,
  serverMaxWindowBits: true,
};

const INIT_OPTIONS: OptionNames<PerMessageDeflateInit> = {
  ...DEFLATE_OPTIONS,
  engine: true,
  maxMessageSize: true,
};

const FLAGS = ["server_no_context_takeover", "client_no_context_takeover"] as const;
const BITS = ["server_max_window_bits", "client_max_window_bits"] as const;

type Flag = (typeof FLAGS)[number];
type Bits = (typeof BITS)[number];

/** The parameters read; undefined where there is none, true where it has no value. */
type Read = { [name in Flag]?: true } & { [name in Bits]?: number | true };

const SMALL = { memLevel: 5, clientMaxWindowBits: 12, serverMaxWindowBits: 12 };
const PRESETS = {
  low: { ...SMALL, clientNoContextTakeover: true, serverNoContextTakeover: true },
  balanced: { ...SMALL, clientNoContextTakeover: false, serverNoContextTakeover: false },
  high: {
    memLevel: 8,
    clientMaxWindowBits: 15,
    serverMaxWindowBits: 15,
    clientNoContextTakeover: false,
    serverNoContextTakeover: false,
  },
};

/** The highest there is: what holds where nothing is said (RFC 7692 §7.1.2). */
const MOST_BITS = 15;
const LEAST_BITS = 8;

const RANGES = [
  ["level", -1, 9],
  ["memLevel", 1, 9],
  ["threshold", 0, Infinity],
  ["clientMaxWindowBits", LEAST_BITS, MOST_BITS],
  ["serverMaxWindowBits", LEAST_BITS, MOST_BITS],
] as const;
const SWITCHES = ["clientNoContextTakeover", "serverNoContextTakeover"] as const;

/**
 * Checks the types and values that JavaScript lets through.
 *
 * @throws {TypeError} for a value of the wrong type
 * @throws {RangeError} for one that is out of range
 */
export function checkDeflateOptions(options: PerMessageDeflateOptions): void {
  for (const [name, least, most] of RANGES) {
    const value: unknown = options[name];
    if (value === undefined) continue;
    if (typeof value !== "number") {
      throw new TypeError(`Expected ${name} to be a number, received ${typeof value}`);
    }
    const whole = Number.isInteger(value) || (value === Infinity && most === Infinity);
    if (!whole || value < least || value > most) {
      throw new RangeError(`Expected ${name} from ${least} to ${most}, received ${value}`);
    }
  }
  for (const name of SWITCHES) {
    const value: unknown = options[name];
    if (value !== undefined && typeof value !== "boolean") {
      throw new TypeError(`Expected ${name} to be a boolean, received ${typeof value}`);
    }
  }
  const { memory = "balanced" } = options;
  if (!Object.hasOwn(PRESETS, memory)) {
    throw new RangeError(`Expected memory to be low, balanced or high, received ${memory}`);
  }
}

/**
 * Compression of messages (RFC 7692), as one end supports it.
 *
 * @example
 * ```ts
 * import { PerMessageDeflate } from "@sluice/sluice/core";
 * import { deflateEngine } from "@sluice/sluice/zlib";
 *
 * const server = new PerMessageDeflate({ engine: deflateEngine, serverMaxWindowBits: 10 });
 * console.log(server.accept([["client_no_context_takeover", undefined]])?.parameters);
 * // [["client_no_context_takeover", undefined], ["server_max_window_bits", "10"]]
 * ```
 */
export class PerMessageDeflate implements ExtensionFactory {
  /** "permessage-deflate". */
  readonly name: string = "permessage-deflate";
  readonly #init: PerMessageDeflateInit;
  readonly #settings: Required<Omit<PerMessageDeflateOptions, "memory">>;

  /**
   * Makes it for any number of connections.
   *
   * @param init what compresses, and how
   * @throws {TypeError} for a value of the wrong type
   * @throws {RangeError} for one that is out of range
   */
  constructor(init: PerMessageDeflateInit) {
    checkKnown("PerMessageDeflate", init, INIT_OPTIONS);
    checkDeflateOptions(init);
    const preset = PRESETS[init.memory ?? "balanced"];
    const given = Object.entries(init).filter(([, value]) => value !== undefined);
    this.#init = init;
    this.#settings = { level: -1, threshold: 1024, ...preset, ...Object.fromEntries(given) };
  }

  /** What a client offers: all that is wished for, or else what is demanded alone. */
  offer(): readonly ExtensionParameters[] {
    const wished = this.#offer(this.#settings);
    const demanded = this.#offer(this.#init);
    return wished.length === demanded.length ? [wished] : [wished, demanded];
  }

  #offer(server: PerMessageDeflateOptions): ExtensionParameters {
    const { clientNoContextTakeover } = this.#settings;
    const { clientMaxWindowBits = MOST_BITS } = this.#init;
    const { serverNoContextTakeover, serverMaxWindowBits = MOST_BITS } = server;
    return parametersOf({
      server_no_context_takeover: serverNoContextTakeover || undefined,
      client_no_context_takeover: clientNoContextTakeover || undefined,
      server_max_window_bits: serverMaxWindowBits < MOST_BITS ? serverMaxWindowBits : undefined,
      // RFC 7692 §7.1.2.2: without a value it says no more than that the server may set one. Some
      // servers that would set a larger one than a value here, or know no value, decline such an offer.
      client_max_window_bits: clientMaxWindowBits < MOST_BITS ? clientMaxWindowBits : true,
    });
  }

  /**
   * A client reads the server's answer.
   *
   * @throws {HandshakeError} "duplicate-parameter", "parameter-name" or "parameter-value"
   */
  finalize(parameters: ExtensionParameters): Extension {
    const answer = read(parameters);
    const { client_max_window_bits: own = MOST_BITS } = answer;
    const { server_max_window_bits: peer = MOST_BITS } = answer;
    // RFC 7692 §7.1.2: in an answer there is always a value.
    if (own === true || peer === true) throw wrongValue("a number of window bits", "none");
    this.#checkAnswer(answer, peer);
    const { clientMaxWindowBits: offered = MOST_BITS } = this.#init;
    // RFC 7692 §7.1.2.2: the server may ask for the same as was offered, or less.
    if (answer.client_max_window_bits !== undefined && own > offered) {
      throw wrongValue(`client_max_window_bits of at most ${offered}`, own);
    }
    // A smaller window than agreed on is within it.
    const windowBits = Math.min(own, this.#settings.clientMaxWindowBits);
    return this.#extension("client", answer, windowBits, peer);
  }

  /** Whether what was demanded was granted: the offers without that were not made. */
  #checkAnswer(answer: Read, windowBits: number): void {
    const { serverNoContextTakeover, serverMaxWindowBits = MOST_BITS } = this.#init;
    // RFC 7692 §7.1.1.1: it is accepted by standing in the answer.
    if (serverNoContextTakeover && !answer.server_no_context_takeover) {
      throw missing("server_no_context_takeover");
    }
    // RFC 7692 §7.1.2.1: so is this, with the same value or a smaller one.
    if (serverMaxWindowBits === MOST_BITS) return;
    if (answer.server_max_window_bits === undefined) throw missing("server_max_window_bits");
    if (windowBits > serverMaxWindowBits) {
      throw wrongValue(`server_max_window_bits of at most ${serverMaxWindowBits}`, windowBits);
    }
  }

  /** A server answers one offer; undefined where it is invalid, or cannot be granted. */
  accept(
    parameters: ExtensionParameters,
  ): { parameters: ExtensionParameters; extension: Extension } | undefined {
    let offer: Read;
    try {
      offer = read(parameters);
    } catch {
      // RFC 7692 §7.1: an offer with invalid parameters is declined.
      return undefined;
    }
    const answer = this.#answer(offer);
    if (answer === undefined) return undefined;
    const { server_max_window_bits: own = MOST_BITS } = answer;
    const { client_max_window_bits: peer = MOST_BITS } = answer;
    const extension = this.#extension("server", answer, own as number, peer as number);
    return { parameters: parametersOf(answer), extension };
  }

  #answer(offer: Read): Read | undefined {
    const { serverMaxWindowBits, clientMaxWindowBits } = this.#settings;
    const asked = offer.server_max_window_bits ?? MOST_BITS;
    // RFC 7692 §7.1.2.1: in an offer this one has a value.
    if (asked === true) return undefined;
    const own = Math.min(asked, serverMaxWindowBits);
    const allowed = offer.client_max_window_bits;
    // RFC 7692 §7.1.2.2: a client that does not offer it cannot be told.
    if (allowed === undefined && (this.#init.clientMaxWindowBits ?? MOST_BITS) < MOST_BITS) {
      return undefined;
    }
    const peer = Math.min(allowed === true ? MOST_BITS : allowed ?? MOST_BITS, clientMaxWindowBits);
    const { serverNoContextTakeover, clientNoContextTakeover } = this.#settings;
    return {
      server_no_context_takeover: offer.server_no_context_takeover || serverNoContextTakeover ||
        undefined,
      // RFC 7692 §7.1.1.2: it may stand in an answer whether or not it was offered.
      client_no_context_takeover: offer.client_no_context_takeover || clientNoContextTakeover ||
        undefined,
      server_max_window_bits: offer.server_max_window_bits !== undefined || own < MOST_BITS
        ? own
        : undefined,
      client_max_window_bits: allowed !== undefined && peer < MOST_BITS ? peer : undefined,
    };
  }

  #extension(role: Role, agreed: Read, windowBits: number, peerWindowBits: number): Extension {
    const { level, memLevel, threshold, clientNoContextTakeover } = this.#settings;
    const { engine, maxMessageSize = Infinity } = this.#init;
    const server = !agreed.server_no_context_takeover;
    // RFC 7692 §7.1.1.2: what a client has announced it does, whatever the answer.
    const client = !agreed.client_no_context_takeover &&
      !(role === "client" && clientNoContextTakeover);
    return new DeflateExtension({
      name: this.name,
      engine,
      threshold,
      deflater: { windowBits, level, memLevel },
      inflater: {
        windowBits: peerWindowBits,
        contextTakeover: role === "client" ? server : client,
        maxMessageSize,
      },
      contextTakeover: role === "client" ? client : server,
    });
  }
}

/** The extensions that this library has, by their registered names. */
export const supportedExtensions: {
  readonly [name: string]: new (init: PerMessageDeflateInit) => ExtensionFactory;
} = { "permessage-deflate": PerMessageDeflate };

function parametersOf(values: Read): ExtensionParameters {
  return [...FLAGS, ...BITS].flatMap((name) => {
    const value = values[name];
    if (value === undefined) return [];
    return [[name, value === true ? undefined : String(value)] as const];
  });
}

/** RFC 7692 §7.1: each parameter is one of four, stands once, and has a value that it can have. */
function read(parameters: ExtensionParameters): Read {
  const values: Read = {};
  for (const [name, value] of parameters) {
    if (Object.hasOwn(values, name)) {
      throw new HandshakeError(`Expected ${name} once`, "duplicate-parameter");
    }
    if (isOneOf(FLAGS, name)) {
      // RFC 7692 §7.1.1: neither of these has a value.
      if (value !== undefined) throw wrongValue(`${name} without a value`, value);
      values[name] = true;
    } else if (isOneOf(BITS, name)) {
      values[name] = value === undefined ? true : windowBitsOf(name, value);
    } else {
      throw new HandshakeError(
        `Expected parameters of permessage-deflate, received ${name}`,
        "parameter-name",
      );
    }
  }
  return values;
}

function isOneOf<T extends string>(names: readonly T[], name: string): name is T {
  return (names as readonly string[]).includes(name);
}

/** RFC 7692 §7.1.2: a decimal integer from 8 to 15, without leading zeros. */
function windowBitsOf(name: string, value: string): number {
  if (!/^(?:[89]|1[0-5])$/.test(value)) throw wrongValue(`${name} from 8 to 15`, value);
  return Number(value);
}

function wrongValue(expected: string, value: string | number): HandshakeError {
  return new HandshakeError(`Expected ${expected}, received ${value}`, "parameter-value");
}

function missing(name: string): HandshakeError {
  return new HandshakeError(`Expected ${name}, which was offered, in the answer`, "parameter-name");
}
