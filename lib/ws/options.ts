/** The options of clients and servers. */
import type { Buffer } from "node:buffer";
import type {
  Agent,
  ClientRequest,
  IncomingMessage,
  OutgoingHttpHeaders,
  RequestOptions,
} from "node:http";
import type { createConnection } from "node:net";
import type { ConnectionOptions as TlsOptions } from "node:tls";
import type { ZlibOptions } from "node:zlib";
import type { Extension, ExtensionFactory, ExtensionParameters } from "../core/extension.ts";
import { HandshakeError } from "../core/error.ts";
import { PerMessageDeflate } from "../core/permessage_deflate.ts";
import { deflateEngine } from "../runtime/zlib.ts";

/** Options of permessage-deflate (RFC 7692). */
export interface PerMessageDeflateOptions {
  /** Whether the server compresses each message by itself. */
  serverNoContextTakeover?: boolean | undefined;
  /** Whether the client compresses each message by itself. */
  clientNoContextTakeover?: boolean | undefined;
  /** Maximum size of the server's window, as its base-2 logarithm, 8 to 15. */
  serverMaxWindowBits?: number | boolean | undefined;
  /** Maximum size of the client's window, as its base-2 logarithm, 8 to 15. */
  clientMaxWindowBits?: number | boolean | undefined;
  /** Options of the compressor. Only `level` and `memLevel` have an effect. */
  zlibDeflateOptions?: Omit<ZlibOptions, "maxOutputLength"> | undefined;
  /** Has no effect. */
  zlibInflateOptions?: ZlibOptions | undefined;
  /**
   * Minimum size of a message that is compressed, in bytes, if each message is compressed by itself.
   * Otherwise every message is compressed.
   * @default {1024}
   */
  threshold?: number | undefined;
  /** Has no effect: short messages are compressed at once, and long ones one at a time. */
  concurrencyLimit?: number | undefined;
}

/** Options of all connections. */
export interface ConnectionOptions {
  /**
   * Whether 'message', 'ping' and 'pong' may be emitted several times in the same turn of the event loop.
   * @default {true}
   */
  allowSynchronousEvents?: boolean | undefined;
  /**
   * Whether pings are answered.
   * @default {true}
   */
  autoPong?: boolean | undefined;
  /**
   * Maximum time to wait for the closing handshake, in milliseconds.
   * @default {30_000}
   */
  closeTimeout?: number | undefined;
  /** Has no effect: a message takes memory in proportion to its size, not to its number of chunks. */
  maxBufferedChunks?: number | undefined;
  /** Maximum number of frames of a message. By default, there is no limit, and 0 disables it. */
  maxFragments?: number | undefined;
  /**
   * Maximum size of a message, in bytes. 0 disables the limit.
   * @default {104_857_600}
   */
  maxPayload?: number | undefined;
  /**
   * Maximum number of automatic pongs that wait to be written. A peer that exceeds it is cut off. 0
   * disables the limit.
   * @default {60}
   */
  maxPendingAutoPongs?: number | undefined;
  /**
   * Whether text that is not UTF-8 is accepted.
   * @default {false}
   */
  skipUTF8Validation?: boolean | undefined;
}

export const CONNECTION_DEFAULTS: ConnectionOptions = {
  allowSynchronousEvents: true,
  autoPong: true,
  closeTimeout: 30_000,
  maxPayload: 100 * 1024 * 1024,
  maxPendingAutoPongs: 60,
  skipUTF8Validation: false,
};

/** Changes a request before it is sent. The function must call `request.end()`. */
export type FinishRequestCallback<T> = (request: ClientRequest, websocket: T) => void;

/** A certificate or a key. */
export type CertMeta = string | string[] | Buffer | Buffer[];

/** Options of a client, in addition to those of `http.request()` and `tls.connect()`. */
export interface ClientOptions
  extends ConnectionOptions, Omit<TlsOptions, "timeout" | "host" | "path" | "port" | "lookup"> {
  /** The agent, which makes the socket. By default, each client makes its own. */
  agent?: Agent | boolean | undefined;
  /** User name and password, separated by a colon. */
  auth?: string | null | undefined;
  /** Makes the socket. */
  createConnection?: RequestOptions["createConnection"] | typeof createConnection;
  /** Family of the address, 4 or 6. */
  family?: number | undefined;
  /** Changes the request before it is sent. */
  finishRequest?: FinishRequestCallback<never> | undefined;
  /**
   * Whether redirects are followed.
   * @default {false}
   */
  followRedirects?: boolean | undefined;
  /** Writes the masking key of a frame into its argument. By default, the key is random. */
  generateMask?: ((mask: Buffer) => void) | undefined;
  /** Maximum time for the opening handshake, in milliseconds. By default, there is no limit. */
  handshakeTimeout?: number | undefined;
  /** Additional header fields. */
  headers?: { [name: string]: string | string[] | number | undefined } | undefined;
  /** Has no effect: the host is that of the URL. */
  host?: string | undefined;
  /** Address of the network interface. */
  localAddress?: string | undefined;
  /** Looks up the address of a host. */
  lookup?: RequestOptions["lookup"];
  /**
   * Maximum number of redirects.
   * @default {10}
   */
  maxRedirects?: number | undefined;
  /** Value of the Origin header. */
  origin?: string | undefined;
  /**
   * Whether to offer compression, and its options.
   * @default {true}
   */
  perMessageDeflate?: boolean | PerMessageDeflateOptions | undefined;
  /** Has no effect. */
  protocol?: string | undefined;
  /** The subprotocols, if the second argument does not name them. */
  protocols?: string | string[] | undefined;
  /**
   * Value of Sec-WebSocket-Version, 8 or 13.
   * @default {13}
   */
  protocolVersion?: number | undefined;
}

/** The request that `verifyClient` decides about. */
export interface VerifyClientInfo<Request extends IncomingMessage = IncomingMessage> {
  /** The value of the Origin header. */
  origin: string;
  /** Whether the connection is encrypted. */
  secure: boolean;
  /** The request. */
  req: Request;
}

/** Returns whether to accept a request. */
export type VerifyClientCallbackSync<Request extends IncomingMessage = IncomingMessage> = (
  info: VerifyClientInfo<Request>,
) => boolean;

/** Calls back with whether to accept a request, and with the refusal. */
export type VerifyClientCallbackAsync<Request extends IncomingMessage = IncomingMessage> = (
  info: VerifyClientInfo<Request>,
  callback: (res: boolean, code?: number, message?: string, headers?: OutgoingHttpHeaders) => void,
) => void;

/** Returns the header fields of a message. An application may have changed them. */
export function fieldsOf({ headers }: IncomingMessage): [string, string][] {
  return Object.entries(headers).flatMap(([name, value = []]) =>
    [value].flat().map((one): [string, string] => [name, one])
  );
}

/** Makes the extension that the option `perMessageDeflate` asks for. */
export function deflateOf(
  option: boolean | PerMessageDeflateOptions | undefined,
  maxPayload: number | undefined,
): PerMessageDeflate | undefined {
  if (!option) return undefined;
  const options = option === true ? {} : option;
  const { level, memLevel } = options.zlibDeflateOptions ?? {};
  return new PerMessageDeflate({
    engine: deflateEngine,
    memory: "high",
    maxMessageSize: maxPayload || Infinity,
    level,
    memLevel,
    serverNoContextTakeover: options.serverNoContextTakeover || undefined,
    clientNoContextTakeover: options.clientNoContextTakeover || undefined,
    serverMaxWindowBits: windowBits(options.serverMaxWindowBits),
    clientMaxWindowBits: windowBits(options.clientMaxWindowBits),
  });
}

function windowBits(option: number | boolean | undefined): number | undefined {
  return typeof option === "number" ? option : undefined;
}

/**
 * Returns the minimum length of a message that is compressed. With context takeover, short messages are
 * compressed too, because they often repeat earlier ones.
 */
export function thresholdOf(
  option: boolean | PerMessageDeflateOptions | undefined,
  hasTakeover: boolean,
): number {
  const { threshold = 1024 } = typeof option === "object" ? option : {};
  return hasTakeover ? 0 : threshold;
}

/** The options that refuse a parameter of the peer if they are false, by the name of the parameter. */
type Refusing = { readonly [parameter: string]: keyof PerMessageDeflateOptions | undefined };

const CLIENT_REFUSES: Refusing = {
  client_no_context_takeover: "clientNoContextTakeover",
  client_max_window_bits: "clientMaxWindowBits",
};

const SERVER_REFUSES: Refusing = {
  server_no_context_takeover: "serverNoContextTakeover",
  server_max_window_bits: "serverMaxWindowBits",
};

/** An extension for one connection, which keeps what was agreed on. */
export class CapturedDeflate implements ExtensionFactory {
  readonly name: string;
  readonly #factory: ExtensionFactory;
  readonly #options: PerMessageDeflateOptions;
  /** The agreed extension. */
  extension: Extension | undefined;

  constructor(
    factory: ExtensionFactory,
    option: boolean | PerMessageDeflateOptions | undefined,
  ) {
    this.name = factory.name;
    this.#factory = factory;
    this.#options = typeof option === "object" ? option : {};
  }

  offer(): ReturnType<ExtensionFactory["offer"]> {
    return this.#factory.offer().map((offer) =>
      offer.filter(([name]) => !this.#isRefused(name, CLIENT_REFUSES))
    );
  }

  finalize(parameters: ExtensionParameters): Extension {
    for (const [name] of parameters) {
      if (!this.#isRefused(name, CLIENT_REFUSES)) continue;
      throw new HandshakeError(`Unexpected parameter "${name}"`, "parameter-name");
    }
    return this.extension = this.#factory.finalize(parameters);
  }

  accept(parameters: ExtensionParameters): ReturnType<ExtensionFactory["accept"]> {
    if (parameters.some(([name]) => this.#isRefused(name, SERVER_REFUSES))) return undefined;
    const accepted = this.#factory.accept(parameters);
    this.extension = accepted?.extension;
    return accepted;
  }

  #isRefused(name: string, options: Refusing): boolean {
    const option = options[name];
    return option !== undefined && this.#options[option] === false;
  }
}
