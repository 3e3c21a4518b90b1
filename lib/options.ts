/** The options and types that client, server, connection and streams share. */
import { domError, wrongType, wrongValue } from "./core/error.ts";
import type { CloseInfo } from "./core/close.ts";
import type { ExtensionFactory } from "./core/extension.ts";
import type { Frame } from "./core/frame.ts";
import { isToken } from "./core/header.ts";
import type { Message } from "./core/message.ts";
import { checkNames, checkNested } from "./core/option_hints.ts";
import type { FrameCounts } from "./core/protocol.ts";
import {
  checkBoolean,
  checkFunction,
  checkNumber,
  checkSignal,
  checkSlow,
  checkText,
  checkTexts,
  checkType,
  checkValues,
  type OptionNames,
} from "./core/options.ts";
import { DEFLATE_OPTIONS, type PerMessageDeflateOptions } from "./core/permessage_deflate.ts";
import type { TlsConnectOptions, TlsServeOptions, TransportProvider } from "./transport.ts";

/** Bytes in any of the platform's forms. */
export type BufferSource = ArrayBuffer | ArrayBufferView;

/**
 * A message to send. An iterable or a stream is one message with a frame for each item. The items must be
 * all text or all bytes.
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

/** How the received messages that have not been read are measured. */
export interface InboxStrategy {
  /**
   * Maximum sum of the sizes of messages that wait. Once the sum is reached, the transport is not read. One
   * message is always let in. Without `size`, the sum is about the memory that the messages take, in bytes.
   * @default {65_536}
   */
  highWaterMark?: number | undefined;
  /**
   * Measures a message that has to wait. If the result is negative, Infinity or not a number, the
   * connection fails with 1011; a `ByteLengthQueuingStrategy` gives such a result for text. By default, the
   * size is the length of the message plus 64 for text, or plus 256 for bytes.
   */
  size?: ((message: Message) => number) | undefined;
}

/** Options that clients and servers have in common. */
export interface ConnectionOptions {
  /** Subprotocols, the preferred one first. */
  protocols?: string[] | undefined;
  /** Additional header fields for the request or the response. */
  headers?: HeadersLike | undefined;
  /**
   * Extensions of the protocol, the preferred one first. A client offers these extensions, a server accepts
   * them.
   */
  extensions?: readonly ExtensionFactory[] | undefined;
  /**
   * Whether and how to compress messages, if the peer agrees (RFC 7692). Compression costs CPU time and
   * memory.
   * @default true on a client, false on a server
   */
  compression?: boolean | PerMessageDeflateOptions | undefined;
  /** Ends the opening handshake when aborted. The signal has no effect afterwards. */
  signal?: AbortSignal | undefined;
  /**
   * Maximum size of a message to receive, in bytes. A larger message fails the connection with 1009.
   * Infinity disables the limit.
   * @default {1_048_576} and Infinity in a `WebSocketStream`
   */
  maxMessageSize?: number | undefined;
  /**
   * Maximum size of a frame to receive, in bytes. A larger frame fails the connection with 1009.
   * @default {Infinity}
   */
  maxFrameSize?: number | undefined;
  /**
   * Maximum number of pings and unrequested pongs to receive in a second, in addition to one for each
   * message. As many may come at once. One more fails the connection with 1008. Infinity disables the limit.
   * @default {10_000}
   */
  maxControlFramesPerSecond?: number | undefined;
  /**
   * Maximum number of bytes that may wait to be sent, including the message at hand. Text counts its UTF-16
   * code units. Beyond this limit, `slow` decides. One message is always let through.
   * @default {1_048_576}
   */
  maxBufferedAmount?: number | undefined;
  /**
   * What happens if a message exceeds `maxBufferedAmount` because the peer is too slow. With "wait", the
   * send waits, as any send waits while more than 64 KiB are buffered. With "close", the connection is
   * closed with 1008. With "terminate", the transport is cut. In the last two cases the send rejects
   * with InvalidStateError. Chunks for `writable` and messages of several frames always wait.
   * @default {"wait"}
   */
  slow?: "wait" | "close" | "terminate" | undefined;
  /**
   * Maximum time for the opening handshake, in milliseconds. 0 disables the limit. Time in which this
   * process stands still does not count.
   * @default {10_000}
   */
  openTimeout?: number | undefined;
  /**
   * Time between a pong and the next ping, in milliseconds. 0 disables pings: then a peer that disappears
   * while the transport is paused is not noticed. Pings after the first come up to a sixteenth earlier,
   * together with those of other connections, and the second one up to a quarter earlier.
   * @default {20_000} and 0 in a `WebSocketStream`
   */
  pingInterval?: number | undefined;
  /**
   * Maximum time to wait for a pong, in milliseconds, before the connection fails with 1011. 0 disables the
   * limit. The time starts again whenever bytes arrive, or bytes leave that had to wait because the peer did
   * not read. A peer that has disappeared is noticed after one such time without progress. While this side
   * does not read, it takes two, because the pong may have arrived. If more than 64 KiB were sent before the
   * ping and no pong has confirmed them, it takes three, because a slow peer may still have to read them.
   * @default {20_000} and 0 in a `WebSocketStream`
   */
  pingTimeout?: number | undefined;
  /**
   * Maximum time for the closing handshake, in milliseconds, before the transport is cut. 0 disables the
   * limit. Time in which this process stands still does not count.
   * @default {10_000}
   */
  closeTimeout?: number | undefined;
  /**
   * How much may wait to be read.
   * @default 65,536, counting the length of each message plus 64 for text, or plus 256 for bytes
   */
  readableStrategy?: InboxStrategy | undefined;
  /**
   * Called with each frame, for diagnosis. The callback must not change or keep the payload; see the same
   * member of `ProtocolOptions`.
   */
  onFrame?: ((direction: "in" | "out", frame: Frame) => void) | undefined;
  /** Makes the transports. By default, the provider of the running platform is used. */
  provider?: TransportProvider | undefined;
}

export const CONNECTION_OPTIONS: OptionNames<ConnectionOptions> = {
  protocols: checkTexts,
  headers: true,
  extensions: checkExtensions,
  compression: (name, value) => {
    if (typeof value !== "boolean") checkNested(name, value, DEFLATE_OPTIONS);
  },
  signal: checkSignal,
  maxMessageSize: checkNumber,
  maxFrameSize: checkNumber,
  maxControlFramesPerSecond: checkNumber,
  maxBufferedAmount: checkNumber,
  slow: checkSlow,
  openTimeout: checkNumber,
  pingInterval: checkNumber,
  pingTimeout: checkNumber,
  closeTimeout: checkNumber,
  readableStrategy: checkStrategy,
  onFrame: checkFunction,
  provider: checkProvider,
};

const STRATEGY_OPTIONS: OptionNames<InboxStrategy> = {
  highWaterMark: checkNumber,
  size: checkFunction,
};

const TLS_SERVE_OPTIONS: OptionNames<TlsServeOptions> = {
  cert: checkPem,
  key: checkPem,
  ca: checkAuthorities,
  alpn: checkAlpn,
};

// A spread would keep both tables in the bundles of browsers.
const TLS_CONNECT_OPTIONS: OptionNames<TlsConnectOptions> = /* @__PURE__ */ Object.assign(
  { servername: checkNotEmpty, insecureSkipVerify: checkBoolean },
  TLS_SERVE_OPTIONS,
);

/** Checks for a string that is not empty. */
export function checkNotEmpty(name: string, value: unknown): void {
  checkText(name, value);
  if (value === "") throw wrongValue(`Expected ${name} not to be empty`);
}

/**
 * Checks the subprotocols to offer (RFC 6455 §4.1).
 * @throws {DOMException} SyntaxError If a subprotocol is not a token, or occurs twice, whatever its case.
 */
export function checkProtocols(name: string, protocols: unknown): void {
  checkTexts(name, protocols);
  const seen = new Set<string>();
  for (const protocol of protocols as string[]) {
    const isTwice = seen.has(protocol.toLowerCase());
    if (isToken(protocol) && !isTwice) {
      seen.add(protocol.toLowerCase());
      continue;
    }
    // The message does not show the subprotocol, which may contain a token.
    throw domError(
      "SyntaxError",
      isTwice
        ? "Expected each subprotocol once"
        : "Expected each subprotocol to be a token: letters, digits and !#$%&'*+-.^_`|~",
      "wrong-value",
    );
  }
}

function checkExtensions(name: string, value: unknown): void {
  const isFactory = (one: unknown) => {
    const { name, offer, accept, finalize } = Object(one) as Partial<ExtensionFactory>;
    return [offer, accept, finalize].every((method) => typeof method === "function") &&
      typeof name === "string";
  };
  const isValid = Array.isArray(value) && value.every(isFactory);
  checkType(name, value, "an array of extension factories", isValid);
}

/** Checks the option `readableStrategy`. */
export function checkStrategy(name: string, value: unknown): void {
  checkType(name, value, "an object", typeof value === "object" && value !== null);
  const prototype: unknown = Object.getPrototypeOf(value);
  const isPlain = prototype === Object.prototype || prototype === null;
  // An object of a class may have other members.
  if (isPlain) checkNames(name, value, STRATEGY_OPTIONS);
  checkValues(value as object, STRATEGY_OPTIONS, `${name}.`);
}

function checkProvider(name: string, value: unknown): void {
  if (isProvider(value)) return;
  const instead = typeof Object(value).handle === "function" ? ": write { transport }" : "";
  throw wrongType(
    `Expected ${name} to be an object with the methods connect() and listen()${instead}`,
  );
}

/** Checks the option `transport`. Streams are checked when they are used. */
export function checkTransport(name: string, value: unknown): void {
  if (!isProvider(value)) return;
  throw wrongType(
    `Expected ${name} to be a transport or a pair of byte streams, received a provider: ` +
      "write { provider }",
  );
}

function isProvider(value: unknown): boolean {
  const { connect, listen } = Object(value) as Partial<TransportProvider>;
  return [connect, listen].every((method) => typeof method === "function");
}

/** Checks the option `tls` of a client. */
export function checkTlsConnect(name: string, value: unknown): void {
  checkTls(name, value, TLS_CONNECT_OPTIONS, false);
}

/** Checks the option `tls` of a server. */
export function checkTlsServe(name: string, value: unknown): void {
  checkTls(name, value, TLS_SERVE_OPTIONS, true);
}

function checkTls(name: string, value: unknown, names: object, isRequired: boolean): void {
  checkNames(name, value, names);
  const { cert, key } = value as Partial<TlsServeOptions>;
  if ((cert === undefined) !== (key === undefined) || (isRequired && cert === undefined)) {
    throw wrongType(`Expected ${name}.cert and ${name}.key to be given together`);
  }
  checkValues(value as object, names, `${name}.`);
}

/** RFC 7468 §2. A common mistake is the path of a file. */
function checkPem(name: string, value: unknown): void {
  checkText(name, value);
  if ((value as string).includes("-----BEGIN ")) return;
  throw wrongValue(
    `Expected ${name} to be PEM text that contains "-----BEGIN ", not the path of a file`,
  );
}

function checkAuthorities(name: string, value: unknown): void {
  if (typeof value !== "string") checkTexts(name, value);
  for (const item of [value].flat()) checkPem(name, item);
}

function checkAlpn(name: string, value: unknown): void {
  checkTexts(name, value);
  for (const item of value as string[]) {
    // RFC 7301 §3.1: the length of a name is one byte, and not 0.
    const { length } = new TextEncoder().encode(item);
    if (length > 0 && length < 256) continue;
    throw wrongValue(`Expected each name in ${name} to have 1 to 255 bytes, received ${length}`);
  }
}

/** Options of `send()`. */
export interface SendOptions {
  /** Whether to send a text message; bytes must then be UTF-8. By default, strings are text. */
  text?: boolean | undefined;
  /** Whether to compress the message, if compression was agreed on. By default, its size decides. */
  compress?: boolean | undefined;
  /**
   * Withdraws the message while it waits for a fragmented message to end. If a message of several frames
   * is aborted after its first frame, the connection fails with 1011.
   */
  signal?: AbortSignal | undefined;
}

export const SEND_OPTIONS: OptionNames<SendOptions> = {
  text: checkBoolean,
  compress: checkBoolean,
  signal: checkSignal,
};

/** The Close frames of a connection that is closed or closing. */
export interface CloseDetails {
  /** The Close frame that was received. */
  received?: Required<CloseInfo>;
  /** The Close frame that was sent. */
  sent?: Required<CloseInfo>;
  /** Which Close frame was the first. */
  first?: "received" | "sent";
}

/** Counts of a connection so far. */
export interface ConnectionStats extends FrameCounts {
  /** Number of messages received completely. */
  readonly messagesReceived: number;
  /** Number of messages sent. */
  readonly messagesSent: number;
  /** Number of bytes received, including frame headers. */
  readonly bytesReceived: number;
  /** Number of bytes given to the transport, including frame headers. */
  readonly bytesSent: number;
  /** Size of the messages that wait to be read, as `readableStrategy` measures it. */
  readonly queued: number;
  /** Maximum of `queued` so far. */
  readonly peakQueued: number;
  /** Whether reading from the transport is paused, because messages wait to be read. */
  readonly paused: boolean;
  /** Number of times that reading was paused. */
  readonly pauses: number;
}
