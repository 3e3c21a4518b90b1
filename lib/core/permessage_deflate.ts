/** Negotiates permessage-deflate (RFC 7692 §7.1). */
import { type DeflateEngine, DeflateExtension, type DeflaterOptions } from "./deflate.ts";
import { HandshakeError } from "./error.ts";
import type { Extension, ExtensionFactory, ExtensionParameters } from "./extension.ts";
import type { Role } from "./frame.ts";
import { checkKnown } from "./option_hints.ts";
import {
  checkBoolean,
  checkInteger,
  checkNumber,
  checkOneOf,
  type OptionNames,
} from "./options.ts";

/**
 * Options of message compression. `memory` sets the defaults of the other options. If the peer does
 * not grant an option that is set, messages are not compressed or the handshake fails. The defaults
 * from `memory` are optional for the peer.
 */
export interface PerMessageDeflateOptions {
  /**
   * Memory that a connection may hold. "high": windows of 32 KiB and `memLevel` 8, about 270 KiB.
   * "balanced": windows of 4 KiB and `memLevel` 5, 60 to 130 KiB; the output is a few percent
   * larger. "low": as "balanced", but each message is compressed by itself, and no memory is held
   * between messages.
   * @default {"balanced"}
   */
  memory?: "low" | "balanced" | "high" | undefined;
  /**
   * The compression level, 0 to 9, or -1 for zlib's default, which is 6.
   * @default {-1}
   */
  level?: number | undefined;
  /** Memory of the compressor in addition to its window, 1 to 9: `2 ** (memLevel + 9)` bytes. */
  memLevel?: number | undefined;
  /**
   * Minimum size of a message that is compressed, in bytes. A message that is sent in pieces is
   * always compressed.
   * @default {1024}
   */
  threshold?: number | undefined;
  /** Whether the client compresses each message by itself (RFC 7692 §7.1.1.2). */
  clientNoContextTakeover?: boolean | undefined;
  /** Whether the server compresses each message by itself (RFC 7692 §7.1.1.1). */
  serverNoContextTakeover?: boolean | undefined;
  /**
   * Maximum size of the client's window, as its base-2 logarithm, 8 to 15 (RFC 7692 §7.1.2.2). A
   * client without this option accepts any value from the server, and uses the smaller of the
   * server's value and that of `memory`. With 8 to 14 it offers this value, which some servers
   * decline.
   */
  clientMaxWindowBits?: number | undefined;
  /** Maximum size of the server's window, as its base-2 logarithm, 8 to 15 (RFC 7692 §7.1.2.1). */
  serverMaxWindowBits?: number | undefined;
}

/** Options of a {@linkcode PerMessageDeflate}. */
export interface PerMessageDeflateInit extends PerMessageDeflateOptions {
  /** The implementation of DEFLATE. */
  engine: DeflateEngine;
  /**
   * Maximum size of a message, in bytes, for an engine that inflates a whole message at once. The
   * receiver also checks the size of each message.
   * @default {Infinity}
   */
  maxMessageSize?: number;
}

export const DEFLATE_OPTIONS: OptionNames<PerMessageDeflateOptions> = {
  memory: (name, value) => checkOneOf(name, value, ["low", "balanced", "high"]),
  level: (name, value) => checkInteger(name, value, -1, 9),
  memLevel: (name, value) => checkInteger(name, value, 1, 9),
  threshold: (name, value) => checkInteger(name, value, 0, Infinity),
  clientNoContextTakeover: checkBoolean,
  serverNoContextTakeover: checkBoolean,
  clientMaxWindowBits: checkWindowBits,
  serverMaxWindowBits: checkWindowBits,
};

function checkWindowBits(name: string, value: unknown): void {
  checkInteger(name, value, 8, 15);
}

// A spread would keep the table in the bundles of browsers.
const INIT_OPTIONS: OptionNames<PerMessageDeflateInit> = /* @__PURE__ */ Object.assign(
  { engine: true, maxMessageSize: checkNumber } as const,
  DEFLATE_OPTIONS,
);

const FLAGS = ["server_no_context_takeover", "client_no_context_takeover"] as const;
const BITS = ["server_max_window_bits", "client_max_window_bits"] as const;

type Flag = (typeof FLAGS)[number];
type Bits = (typeof BITS)[number];

/** Parsed parameters. A missing parameter is undefined, a parameter without a value is true. */
type Parameters = { [name in Flag]?: true } & { [name in Bits]?: number | true };

const BALANCED = {
  memLevel: 5,
  clientMaxWindowBits: 12,
  serverMaxWindowBits: 12,
  clientNoContextTakeover: false,
  serverNoContextTakeover: false,
};

const PRESETS = {
  low: { ...BALANCED, clientNoContextTakeover: true, serverNoContextTakeover: true },
  balanced: BALANCED,
  high: { ...BALANCED, memLevel: 8, clientMaxWindowBits: 15, serverMaxWindowBits: 15 },
};

/** RFC 7692 §7.1.2: the window size without a parameter. */
const MOST_BITS = 15;

/**
 * The extension permessage-deflate (RFC 7692), as one end supports it.
 *
 * @example
 * ```ts
 * import { PerMessageDeflate } from "sluice/core";
 * import { deflateEngine } from "sluice/zlib";
 *
 * const server = new PerMessageDeflate({ engine: deflateEngine, serverMaxWindowBits: 10 });
 * console.log(server.accept([["client_no_context_takeover", undefined]])?.parameters);
 * // [["client_no_context_takeover", undefined], ["server_max_window_bits", "10"]]
 * ```
 */
export class PerMessageDeflate implements ExtensionFactory {
  /** The registered name, "permessage-deflate". */
  readonly name: string = "permessage-deflate";
  readonly #init: PerMessageDeflateInit;
  readonly #settings: Required<Omit<PerMessageDeflateOptions, "memory">>;
  /** The options of all compressors, by their window. */
  readonly #deflaters: Record<number, DeflaterOptions> = {};

  /**
   * Makes an extension for any number of connections.
   * @param init The engine and the options.
   * @throws {TypeError} If an option has the wrong type.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(init: PerMessageDeflateInit) {
    checkKnown("PerMessageDeflate", init, INIT_OPTIONS);
    const preset = PRESETS[init.memory ?? "balanced"];
    const given = Object.entries(init).filter(([, value]) => value !== undefined);
    this.#init = init;
    this.#settings = { level: -1, threshold: 1024, ...preset, ...Object.fromEntries(given) };
  }

  /** Returns a client's offers: first all that it prefers, then only what its options require. */
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
      // RFC 7692 §7.1.2.2: without a value, the server may choose one. Some servers decline an
      // offer with a value.
      client_max_window_bits: clientMaxWindowBits < MOST_BITS ? clientMaxWindowBits : true,
    });
  }

  /**
   * Makes a client's extension from the server's answer.
   * @throws {HandshakeError} If a parameter is wrong: "duplicate-parameter", "parameter-name" or
   * "parameter-value".
   */
  finalize(parameters: ExtensionParameters): Extension {
    const answer = parseParameters(parameters);
    const { client_max_window_bits: own = MOST_BITS } = answer;
    const { server_max_window_bits: peer = MOST_BITS } = answer;
    // RFC 7692 §7.1.2: in an answer, both parameters have a value.
    if (own === true) throw wrongValue("client_max_window_bits", "a number", "no value");
    if (peer === true) throw wrongValue("server_max_window_bits", "a number", "no value");
    this.#checkAnswer(answer, peer);
    const { clientMaxWindowBits: offered = MOST_BITS } = this.#init;
    // RFC 7692 §7.1.2.2: the server may choose the offered value or a smaller one.
    if (answer.client_max_window_bits !== undefined && own > offered) {
      throw wrongValue("client_max_window_bits", `at most ${offered}`, own);
    }
    // A client may use a smaller window than the agreed one.
    const windowBits = Math.min(own, this.#settings.clientMaxWindowBits);
    return this.#extension("client", answer, windowBits, peer);
  }

  /** Checks that the server grants what every offer requires. */
  #checkAnswer(answer: Parameters, windowBits: number): void {
    const { serverNoContextTakeover, serverMaxWindowBits = MOST_BITS } = this.#init;
    // RFC 7692 §7.1.1.1: a server accepts the parameter by including it in the answer.
    if (serverNoContextTakeover && !answer.server_no_context_takeover) {
      throw missing("server_no_context_takeover");
    }
    // RFC 7692 §7.1.2.1: the same, with the offered value or a smaller one.
    if (serverMaxWindowBits === MOST_BITS) return;
    if (answer.server_max_window_bits === undefined) throw missing("server_max_window_bits");
    if (windowBits > serverMaxWindowBits) {
      throw wrongValue("server_max_window_bits", `at most ${serverMaxWindowBits}`, windowBits);
    }
  }

  /** Makes a server's extension from one offer. Returns undefined to decline the offer. */
  accept(
    parameters: ExtensionParameters,
  ): { parameters: ExtensionParameters; extension: Extension } | undefined {
    let offer: Parameters;
    try {
      offer = parseParameters(parameters);
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

  #answer(offer: Parameters): Parameters | undefined {
    const { serverMaxWindowBits, clientMaxWindowBits } = this.#settings;
    const asked = offer.server_max_window_bits ?? MOST_BITS;
    // RFC 7692 §7.1.2.1: in an offer, server_max_window_bits has a value.
    if (asked === true) return undefined;
    const own = Math.min(asked, serverMaxWindowBits);
    const allowed = offer.client_max_window_bits;
    // RFC 7692 §7.1.2.2: the answer may have the parameter only if the offer has it.
    if (allowed === undefined && (this.#init.clientMaxWindowBits ?? MOST_BITS) < MOST_BITS) {
      return undefined;
    }
    const peer = Math.min(allowed === true ? MOST_BITS : allowed ?? MOST_BITS, clientMaxWindowBits);
    const { serverNoContextTakeover, clientNoContextTakeover } = this.#settings;
    return {
      server_no_context_takeover: offer.server_no_context_takeover || serverNoContextTakeover ||
        undefined,
      // RFC 7692 §7.1.1.2: the answer may have this parameter even if the offer does not.
      client_no_context_takeover: offer.client_no_context_takeover || clientNoContextTakeover ||
        undefined,
      server_max_window_bits: offer.server_max_window_bits !== undefined || own < MOST_BITS
        ? own
        : undefined,
      client_max_window_bits: allowed !== undefined && peer < MOST_BITS ? peer : undefined,
    };
  }

  #extension(
    role: Role,
    agreed: Parameters,
    windowBits: number,
    peerWindowBits: number,
  ): Extension {
    const { level, memLevel, threshold, clientNoContextTakeover } = this.#settings;
    const { engine, maxMessageSize = Infinity } = this.#init;
    const server = !agreed.server_no_context_takeover;
    // RFC 7692 §7.1.1.2: a client must keep its announcement, whatever the answer.
    const client = !agreed.client_no_context_takeover &&
      !(role === "client" && clientNoContextTakeover);
    return new DeflateExtension({
      name: this.name,
      engine,
      threshold,
      deflater: this.#deflaters[windowBits] ??= { windowBits, level, memLevel },
      inflater: {
        windowBits: peerWindowBits,
        contextTakeover: role === "client" ? server : client,
        maxMessageSize,
      },
      contextTakeover: role === "client" ? client : server,
    });
  }
}

/** The extensions of this library, by their registered names. */
export const supportedExtensions: {
  readonly [name: string]: new (init: PerMessageDeflateInit) => ExtensionFactory;
} = { "permessage-deflate": PerMessageDeflate };

function parametersOf(values: Parameters): ExtensionParameters {
  return [...FLAGS, ...BITS].flatMap((name) => {
    const value = values[name];
    if (value === undefined) return [];
    return [[name, value === true ? undefined : String(value)] as const];
  });
}

/** RFC 7692 §7.1: four parameters are defined. Each may occur once, with a valid value. */
function parseParameters(parameters: ExtensionParameters): Parameters {
  const values: Parameters = {};
  for (const [name, value] of parameters) {
    if (Object.hasOwn(values, name)) {
      throw new HandshakeError(`The parameter ${name} occurs twice`, "duplicate-parameter");
    }
    if (isOneOf(FLAGS, name)) {
      // RFC 7692 §7.1.1: these two have no value.
      if (value !== undefined) throw wrongValue(name, "without a value", value);
      values[name] = true;
    } else if (isOneOf(BITS, name)) {
      values[name] = value === undefined ? true : windowBitsOf(name, value);
    } else {
      throw new HandshakeError(`permessage-deflate has no parameter ${name}`, "parameter-name");
    }
  }
  return values;
}

function isOneOf<T extends string>(names: readonly T[], name: string): name is T {
  return (names as readonly string[]).includes(name);
}

/** RFC 7692 §7.1.2: a decimal integer from 8 to 15, without leading zeros. */
function windowBitsOf(name: string, value: string): number {
  if (!/^(?:[89]|1[0-5])$/.test(value)) throw wrongValue(name, "from 8 to 15", value);
  return Number(value);
}

function wrongValue(name: string, expected: string, value: string | number): HandshakeError {
  return new HandshakeError(
    `The parameter ${name} of permessage-deflate must be ${expected}, received ${value}`,
    "parameter-value",
  );
}

function missing(name: string): HandshakeError {
  return new HandshakeError(
    `The server's answer lacks the parameter ${name}, which was offered`,
    "parameter-name",
  );
}
