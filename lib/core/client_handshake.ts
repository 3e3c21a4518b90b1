/**
 * The client's side of the opening handshake (RFC 6455 §4.1).
 *
 * @module
 */
import { HandshakeError, LocalProtocolError } from "./error.ts";
import {
  type Agreement,
  checkHttp2Response,
  checkResponse,
  type HandshakeOffer,
  http2Request,
  http2RequestHead,
  http2ResponseHead,
  lost,
  upgradeRequest,
} from "./handshake.ts";
import type { RawHeaders } from "./header.ts";
import {
  type HeadLimits,
  type RequestHead,
  type ResponseHead,
  ResponseReader,
  serializeRequestHead,
} from "./http1.ts";
import { concat } from "./message.ts";
import { checkKnown, type OptionNames } from "./options.ts";

/** Options of a {@linkcode ClientHandshake}. */
export interface ClientHandshakeOptions extends HandshakeOffer {
  /** The value of the Host header. */
  host: string;
  /** The request target: path and query. */
  target: string;
  /**
   * Additional header fields.
   * @default {[]}
   */
  headers?: RawHeaders;
  /** Limits for the head of the response. */
  limits?: HeadLimits;
  /** The scheme of a request over HTTP/2: "https" for wss, "http" for ws. By default, HTTP/1.1. */
  scheme?: "http" | "https";
}

const CLIENT_HANDSHAKE_OPTIONS: OptionNames<ClientHandshakeOptions> = {
  host: true,
  target: true,
  protocols: true,
  extensions: true,
  requireProtocol: true,
  headers: true,
  limits: true,
  scheme: true,
};

const EMPTY = new Uint8Array(0);

/**
 * The client's side of the opening handshake. Call `send()`, then `receive()` until it returns the
 * head of the response, then `check()`. `trailing` has the bytes after the head.
 * {@linkcode Endpoint} does all of this.
 *
 * @example
 * ```ts
 * import { ClientHandshake } from "sluice/core";
 *
 * const handshake = new ClientHandshake({ host: "example.com", target: "/chat" });
 * console.log(new TextDecoder().decode(handshake.send()).split("\r\n")[0]); // GET /chat HTTP/1.1
 * ```
 */
export class ClientHandshake {
  /** The head of the request. */
  readonly request: RequestHead;
  /** The header fields of the request over HTTP/2. */
  readonly fields: RawHeaders | undefined;
  readonly #key: string;
  readonly #options: ClientHandshakeOptions;
  readonly #reader: ResponseReader;
  #response: ResponseHead | undefined;
  #received: RawHeaders | undefined;
  #trailing: Uint8Array[] = [];

  /**
   * Makes the request.
   * @param options What to ask for.
   * @throws {TypeError} If a header field is one that the handshake writes itself, a protocol is
   * not a token, the host is not a host with an optional port, or the target is neither a path nor
   * the URL of a WebSocket.
   */
  constructor(options: ClientHandshakeOptions) {
    checkKnown("ClientHandshake", options, CLIENT_HANDSHAKE_OPTIONS);
    const { host, target, scheme } = options;
    this.#options = options;
    this.#reader = new ResponseReader(options.limits);
    if (scheme === undefined) {
      const { head, key } = upgradeRequest(options);
      this.request = head;
      this.#key = key;
    } else {
      this.fields = http2Request({ ...options, scheme, authority: host, path: target });
      this.request = http2RequestHead(this.fields);
      this.#key = "";
    }
  }

  /** The head of the response, or undefined until it has been received. */
  get response(): ResponseHead | undefined {
    return this.#response;
  }

  /**
   * Returns the bytes of the request. There are none over HTTP/2.
   * @throws {TypeError} If the target or a header field contains characters that are not allowed
   * there.
   */
  send(): Uint8Array {
    return this.fields === undefined ? serializeRequestHead(this.request) : EMPTY;
  }

  /**
   * Adds the next bytes, or null at the end of the transport. Returns the head of the response once
   * it is complete. At most 16 interim responses (1xx, except 101) may come before the response.
   * @throws {HandshakeError} If the transport ends too early ("connection-lost"), there are more
   * interim responses ("head-too-large"), or {@linkcode parseResponseHead} throws.
   */
  receive(chunk: Uint8Array | null): ResponseHead | undefined {
    if (this.#response !== undefined) {
      // Joined when read: joining at each call would take quadratic time.
      if (chunk !== null) this.#trailing.push(chunk.slice());
      return undefined;
    }
    if (chunk === null) throw lost("response");
    const read = this.#asResponse(() => this.#reader.push(chunk));
    if (read === undefined) return undefined;
    this.#trailing.push(read.rest);
    return this.#response = read.head;
  }

  /** Adds the header fields of a response over HTTP/2, instead of `receive()`. Returns the head. */
  takeFields(fields: RawHeaders): ResponseHead {
    if (this.#response !== undefined) throw new LocalProtocolError("Expected no second head");
    this.#received = fields;
    return this.#response = http2ResponseHead(fields);
  }

  /** The bytes after the head: the first frames, or the body of a refusal. */
  get trailing(): Uint8Array {
    if (this.#trailing.length !== 1) this.#trailing = [concat(this.#trailing)];
    return this.#trailing[0];
  }

  /**
   * Checks the response (RFC 6455 §4.1).
   * @throws {LocalProtocolError} If the head of the response has not been received.
   * @throws {HandshakeError} If the response is wrong: "status", "upgrade", "accept",
   * "subprotocol", "extension" or "malformed-header".
   */
  check(): Agreement {
    const response = this.#response;
    if (response === undefined) throw new LocalProtocolError("Expected a response to check");
    return this.#asResponse(() =>
      this.#received === undefined
        ? checkResponse(response, this.#key, this.#options)
        : checkHttp2Response(this.#received, this.#options)
    );
  }

  /** Runs `run` and adds the status of the response to its error. */
  #asResponse<T>(run: () => T): T {
    try {
      return run();
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      const { message, code, cause } = error;
      throw new HandshakeError(message, code, { status: this.#response?.status, cause });
    }
  }
}
