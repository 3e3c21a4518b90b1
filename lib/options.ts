/**
 * The options and the types that the client, the server, the connection and the streams share.
 *
 * @module
 */
import type { CloseInfo } from "./core/close.ts";
import type { ExtensionFactory } from "./core/extension.ts";
import type { Frame } from "./core/frame.ts";
import { isToken } from "./core/header.ts";
import { HEAD_LIMITS } from "./core/http1.ts";
import { checkKnown, type OptionNames } from "./core/options.ts";
import {
  checkDeflateOptions,
  DEFLATE_OPTIONS,
  type PerMessageDeflateOptions,
} from "./core/permessage_deflate.ts";
import type { Message } from "./core/message.ts";
import type { TlsConnectOptions, TlsServeOptions, TransportProvider } from "./transport.ts";

/** Bytes in any of the platform's forms. */
export type BufferSource = ArrayBuffer | ArrayBufferView;

/**
 * What `send()` takes. An iterable or a stream is one message, a frame for each of its items, which
 * must all be text or all be bytes.
 */
export type OutgoingMessage =
  | Message
  | BufferSource
  | Iterable<Message>
  | AsyncIterable<Message>
  | ReadableStream<Message>;

/** Header fields in any of the usual forms. */
export type HeadersLike =
  | Headers
  | Record<string, string>
  | Iterable<readonly [name: string, value: string]>;

/** How the messages that wait are measured. */
export interface InboxStrategy {
  /**
   * The sum from which on no more is read from the transport; one message is always let in. With `size`
   * left out it is about the memory that waits, in bytes. Default: 65536
   */
  highWaterMark?: number;
  /**
   * Measures a message, once, when it has to wait. A result that is negative, Infinity or no number, as
   * that of a `ByteLengthQueuingStrategy` for text, is a RangeError as in a stream: the connection fails
   * with 1011. Default: the length of the message plus 64, or 256 if it is bytes, for its object
   */
  size?: (message: Message) => number;
}

/** What clients and servers have in common. */
export interface ConnectionOptions {
  /** The subprotocols, the preferred one first. Default: none */
  protocols?: string[];
  /** More header fields for the request, or the response. Default: none */
  headers?: HeadersLike;
  /**
   * Extensions of the protocol, the preferred one first: what a client offers, and what a server
   * accepts. Default: none
   */
  extensions?: readonly ExtensionFactory[];
  /**
   * Whether, and how, messages are compressed where the peer agrees (RFC 7692): a client offers it, a
   * server accepts it. Default: true on a client, false on a server, which it costs CPU and memory
   */
  compression?: boolean | PerMessageDeflateOptions;
  /** Ends the opening handshake when aborted; without effect afterwards. Default: none */
  signal?: AbortSignal;
  /**
   * The longest message received, in bytes; a longer one fails the connection with 1009. Infinity
   * disables. Default: 1048576, but Infinity in a `WebSocketStream`
   */
  maxMessageSize?: number;
  /** The longest frame received, in bytes. Default: Infinity, `maxMessageSize` being the limit */
  maxFrameSize?: number;
  /**
   * How many pings, and pongs that answer none of ours, may come in a second, beside one for each
   * message; as many may come at once. One more fails the connection with 1008. Infinity disables.
   * Default: 10000
   */
  maxControlFramesPerSecond?: number;
  /**
   * How many bytes may wait to be sent before the peer is too slow, the message at hand included, of text
   * its code units; one message is always let through. Default: 1048576
   */
  maxBufferedAmount?: number;
  /**
   * What becomes of a connection whose peer is too slow when a message is sent: the send waits as any
   * over 64 KiB does, however much waits already, or the connection is closed with 1008, or cut; the
   * send then rejects with InvalidStateError. What is written to `writable`, and a message of several
   * frames, always wait, one chunk at a time. Default: "wait"
   */
  slow?: "wait" | "close" | "terminate";
  /**
   * Maximum time for the opening handshake, in milliseconds. 0 disables the limit. A standstill of this
   * process does not count: what has arrived meanwhile is read first. Default: 10000
   */
  openTimeout?: number;
  /**
   * How often a ping is sent, in milliseconds; 0 disables: then a peer that leaves is not noticed while
   * the transport is paused, because nobody reads what has come. Default: 20000, but 0 in a
   * `WebSocketStream`
   */
  pingInterval?: number;
  /**
   * Maximum time to wait for a pong, in milliseconds, before the connection fails with 1011. 0 disables
   * the limit. The time starts anew whenever bytes come, or bytes leave that had to wait because the peer
   * did not read. A peer that is gone is found after one such time without progress; after two of them
   * while this side does not read, because the pong may have come; and after three if more than 64 KiB
   * were sent before the ping and no pong has confirmed them, because a slow peer may still have to read
   * these. Default: 20000, but 0 in a `WebSocketStream`
   */
  pingTimeout?: number;
  /**
   * Maximum time for the closing handshake, in milliseconds, before the transport is cut. 0 disables the
   * limit. A standstill of this process does not count: what has arrived meanwhile is read first.
   * Default: 10000
   */
  closeTimeout?: number;
  /**
   * How much may wait to be read. Default: 65536, counting the length of each message plus 64, or 256 if
   * it is bytes
   */
  readableStrategy?: InboxStrategy;
  /**
   * Called with each frame, for diagnosis. Its payload is only to be looked at; see the same member of
   * `ProtocolOptions`. Default: none
   */
  onFrame?: (direction: "in" | "out", frame: Frame) => void;
  /** Makes the transports. Default: the provider of the running platform */
  provider?: TransportProvider;
}

/** The options that clients and servers have in common. */
export const CONNECTION_OPTIONS: OptionNames<ConnectionOptions> = {
  protocols: true,
  headers: true,
  extensions: true,
  compression: true,
  signal: true,
  maxMessageSize: true,
  maxFrameSize: true,
  maxControlFramesPerSecond: true,
  maxBufferedAmount: true,
  slow: true,
  openTimeout: true,
  pingInterval: true,
  pingTimeout: true,
  closeTimeout: true,
  readableStrategy: true,
  onFrame: true,
  provider: true,
};

const STRATEGY_OPTIONS: OptionNames<InboxStrategy> = { highWaterMark: true, size: true };

const TLS_SERVE_OPTIONS: OptionNames<TlsServeOptions> = {
  cert: true,
  key: true,
  ca: true,
  alpn: true,
};

const TLS_CONNECT_OPTIONS: OptionNames<TlsConnectOptions> = {
  ...TLS_SERVE_OPTIONS,
  servername: true,
  insecureSkipVerify: true,
};

/**
 * Checks the subprotocols to offer (RFC 6455 §4.1).
 *
 * @throws {DOMException} SyntaxError for one that is no token or stands twice, whatever its case
 */
export function checkProtocols(protocols: readonly string[] = []): void {
  const seen = new Set<string>();
  for (const protocol of protocols) {
    if (!isToken(protocol) || seen.has(protocol.toLowerCase())) {
      throw new DOMException(
        `Expected subprotocols that are tokens and stand once each, received ${
          JSON.stringify(protocol)
        }`,
        "SyntaxError",
      );
    }
    seen.add(protocol.toLowerCase());
  }
}

/** The options that are numbers of 0 or more. */
const NUMBERS = [
  "maxMessageSize",
  "maxFrameSize",
  "maxControlFramesPerSecond",
  "maxBufferedAmount",
  "openTimeout",
  "pingInterval",
  "pingTimeout",
  "closeTimeout",
] as const;

/** What may become of a connection whose peer is too slow. */
const SLOW: readonly unknown[] = ["wait", "close", "terminate"];

/**
 * Checks the types and values that JavaScript lets through.
 *
 * @throws {TypeError} for a value of the wrong type
 * @throws {RangeError} for a number that is negative or none
 */
export function checkOptions(options: ConnectionOptions): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`Expected options as an object, received ${typeof options}`);
  }
  for (const name of NUMBERS) checkNumber(name, options[name]);
  checkOneOf("slow", options.slow, SLOW);
  checkSignal(options.signal);
  checkFunctions(options, ["onFrame"]);
  checkProvider(options.provider);
  checkStrategy(options.readableStrategy);
  const { protocols = [], extensions = [], compression } = options;
  checkKind(
    "compression",
    compression,
    "a boolean or an object",
    (value) => typeof value === "boolean" || isObject(value),
  );
  if (typeof compression === "object") {
    checkKnown("compression", compression, DEFLATE_OPTIONS);
    checkDeflateOptions(compression);
  }
  if (!Array.isArray(extensions) || !extensions.every(isFactory)) {
    throw new TypeError("Expected extensions as an array of extension factories");
  }
  if (!Array.isArray(protocols) || protocols.some((protocol) => typeof protocol !== "string")) {
    throw new TypeError("Expected protocols as an array of strings");
  }
}

/** Checks a strategy that may be left out. */
export function checkStrategy(strategy: InboxStrategy | undefined): void {
  checkKind("readableStrategy", strategy, "an object", isObject);
  // An object of a class may have members of its own.
  if (strategy !== undefined && isPlain(strategy)) {
    checkKnown("readableStrategy", strategy, STRATEGY_OPTIONS);
  }
  checkNumber("readableStrategy.highWaterMark", strategy?.highWaterMark);
  checkFunctions(strategy ?? {}, ["size"]);
}

/** Checks a signal that may be left out. */
export function checkSignal(signal: unknown): void {
  checkKind("signal", signal, "an AbortSignal", (value) => value instanceof AbortSignal);
}

function checkProvider(provider: unknown): void {
  if (provider === undefined || isProvider(provider)) return;
  const instead = typeof Object(provider).handle === "function" ? ": write { transport }" : "";
  throw new TypeError(
    `Expected provider to be an object with the methods connect() and listen()${instead}`,
  );
}

/**
 * Checks a transport that may be left out. Streams are checked when they are used.
 *
 * @throws {TypeError} If it is a provider.
 */
export function checkTransport(transport: unknown): void {
  if (transport === undefined || !isProvider(transport)) return;
  throw new TypeError(
    "Expected transport to be a transport or a pair of byte streams, received what makes transports: " +
      "write { provider }",
  );
}

function isProvider(value: unknown): boolean {
  const { connect, listen } = Object(value) as Partial<TransportProvider>;
  return [connect, listen].every((method) => typeof method === "function");
}

/**
 * Checks the path of a Unix socket.
 *
 * @throws {TypeError} If it is no string.
 * @throws {RangeError} If it is empty.
 */
export function checkUnix(unix: unknown): void {
  if (unix === undefined) return;
  if (typeof unix !== "string") {
    throw new TypeError(`Expected unix to be a string, received ${typeof unix}`);
  }
  if (unix === "") throw new RangeError("Expected unix not to be empty");
}

/**
 * Checks the options of TLS, of which the platforms refuse different ones, in different words.
 *
 * @param required which of them must not be missing
 * @throws {TypeError} for a value of the wrong type, or a certificate without its key
 * @throws {RangeError} for what is not in PEM format, and for a name that is empty or too long
 */
export function checkTls(tls: unknown, required: readonly string[] = []): void {
  if (tls === undefined) return;
  if (typeof tls !== "object" || tls === null) {
    throw new TypeError(`Expected tls to be an object, received ${typeof tls}`);
  }
  checkKnown("tls", tls, required.length > 0 ? TLS_SERVE_OPTIONS : TLS_CONNECT_OPTIONS);
  const options = tls as Record<string, unknown>;
  const texts = (value: unknown) => Array.isArray(value) && value.every(isText);
  const expect = (name: string, what: string, matches: (value: unknown) => boolean) => {
    if (options[name] === undefined && !required.includes(name)) return;
    if (!matches(options[name])) throw new TypeError(`Expected tls.${name} to be ${what}`);
  };
  for (const name of ["cert", "key", "servername"]) expect(name, "a string", isText);
  expect("ca", "a string or an array of strings", (value) => isText(value) || texts(value));
  expect("alpn", "an array of strings", texts);
  // The text "false" would count as true.
  expect("insecureSkipVerify", "true or false", (value) => typeof value === "boolean");
  if ((options.cert === undefined) !== (options.key === undefined)) {
    throw new TypeError("Expected tls.cert and tls.key together, received one of them");
  }
  checkTlsValues(options as TlsConnectOptions);
}

function checkTlsValues({ ca = [], cert, key, servername, alpn = [] }: TlsConnectOptions): void {
  for (const [name, value] of Object.entries({ cert, key })) checkPem(name, value);
  for (const value of [ca].flat()) checkPem("ca", value);
  // A platform would check an address of its own in place of it.
  if (servername === "") throw new RangeError("Expected tls.servername not to be empty");
  for (const name of alpn) {
    // RFC 7301 §3.1: a name's length is one byte, and not 0.
    const { length } = new TextEncoder().encode(name);
    if (length > 0 && length < 256) continue;
    throw new RangeError(`Expected names in tls.alpn of 1 to 255 bytes, received ${length}`);
  }
}

/** RFC 7468 §2: what is no PEM at all, as the path of a file. */
function checkPem(name: string, value: string | undefined): void {
  if (value === undefined || value.includes("-----BEGIN ")) return;
  throw new RangeError(`Expected tls.${name} in PEM format, received none of it`);
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function checkKind(
  name: string,
  value: unknown,
  what: string,
  matches: (value: unknown) => boolean,
): void {
  if (value === undefined || matches(value)) return;
  throw new TypeError(
    `Expected ${name} to be ${what}, received ${value === null ? "null" : typeof value}`,
  );
}

/**
 * Checks that what stands under these names is a function, if anything does.
 *
 * @throws {TypeError} when it is something else
 */
export function checkFunctions<T extends object>(
  options: T,
  names: readonly (keyof T & string)[],
): void {
  for (const name of names) {
    checkKind(name, options[name], "a function", (value) => typeof value === "function");
  }
}

/**
 * Checks limits, all of them numbers.
 *
 * @throws {TypeError} for a value of the wrong type
 * @throws {RangeError} for a number that is negative or none
 */
export function checkLimits(limits: unknown): void {
  checkKind("limits", limits, "an object", isObject);
  if (limits !== undefined) checkKnown("limits", limits, HEAD_LIMITS);
  for (const [name, value] of Object.entries(limits ?? {})) checkNumber(`limits.${name}`, value);
}

function isFactory(value: unknown): boolean {
  const { name, offer, accept, finalize } = Object(value) as Partial<ExtensionFactory>;
  return typeof name === "string" &&
    [offer, accept, finalize].every((method) => typeof method === "function");
}

function isText(value: unknown): boolean {
  return typeof value === "string";
}

/** Checks that it is one of these, if it is anything. */
export function checkOneOf(name: string, value: unknown, these: readonly unknown[]): void {
  if (value === undefined || these.includes(value)) return;
  throw new RangeError(`Expected ${name} to be one of ${these.join(", ")}, received ${value}`);
}

/** Checks options that are strings or left out. */
export function checkTexts<T extends object>(
  options: T,
  names: readonly (keyof T & string)[],
): void {
  for (const name of names) checkKind(name, options[name], "a string", isText);
}

/** Checks options that are true, false or left out. */
export function checkBooleans<T extends object>(
  options: T,
  names: readonly (keyof T & string)[],
): void {
  for (const name of names) {
    checkKind(name, options[name], "true or false", (value) => typeof value === "boolean");
  }
}

/** Checks a number of 0 or more that may be left out. */
export function checkNumber(name: string, value: unknown): void {
  if (value === undefined) return;
  if (typeof value !== "number") {
    throw new TypeError(`Expected ${name} to be a number, received ${typeof value}`);
  }
  if (!(value >= 0)) {
    throw new RangeError(`Expected ${name} to be at least 0, received ${value}`);
  }
}

/** How one message is sent. */
export interface SendOptions {
  /** Whether it is a text message; bytes must then be UTF-8. Default: whether it is a string */
  text?: boolean;
  /** Whether to compress it, where compression was agreed on. Default: by its length */
  compress?: boolean;
  /**
   * Takes the message back while it waits for its turn behind a fragmented one; a message of several
   * frames that is aborted after its first fails the connection with 1011. Default: none
   */
  signal?: AbortSignal;
}

/** The options of `send()`. */
export const SEND_OPTIONS: OptionNames<SendOptions> = {
  text: true,
  compress: true,
  signal: true,
};

/** How the connection was, or is being, closed. */
export interface CloseDetails {
  /** The Close frame that came. */
  received?: Required<CloseInfo>;
  /** The Close frame that we sent. */
  sent?: Required<CloseInfo>;
  /** Which of them was the first. */
  first?: "received" | "sent";
}

/** What a connection has done so far. */
export interface ConnectionStats {
  /** Messages received whole. */
  readonly messagesReceived: number;
  /** Messages sent. */
  readonly messagesSent: number;
  /** Bytes received, frame headers included. */
  readonly bytesReceived: number;
  /** Bytes given to the transport, frame headers included. */
  readonly bytesSent: number;
  /** What waits to be read, as `readableStrategy` counts it. */
  readonly queued: number;
  /** The most that ever waited. */
  readonly peakQueued: number;
  /** Whether reading from the transport has stopped, because what was read is not taken. */
  readonly paused: boolean;
  /** How often it has. */
  readonly pauses: number;
}
