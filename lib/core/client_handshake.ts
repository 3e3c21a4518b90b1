/**
 * The client's side of the opening handshake (RFC 6455 §4.1), bytes in and bytes out.
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

/** What a client asks for. */
export interface ClientHandshakeOptions extends HandshakeOffer {
  /** The value of the Host header. */
  host: string;
  /** The request target: path and query. */
  target: string;
  /** More header fields. Default: none */
  headers?: RawHeaders;
  /** How large the head of the response may be. */
  limits?: HeadLimits;
  /**
   * Asks over HTTP/2, by a request with this scheme: "https" for a wss URL, "http" for a ws URL.
   *
   * @default HTTP/1.1
   */
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
 * The client's side of the opening handshake: `send()`, then `receive()` until it gives the head of
 * the response, then `check()`. The bytes after the head are in `trailing`. {@linkcode Endpoint} does all
 * of this.
 *
 * @example
 * ```ts
 * import { ClientHandshake } from "@sluice/sluice/core";
 *
 * const handshake = new ClientHandshake({ host: "example.com", target: "/chat" });
 * console.log(new TextDecoder().decode(handshake.send()).split("\r\n")[0]); // GET /chat HTTP/1.1
 * ```
 */
export class ClientHandshake {
  /** The request. */
  readonly request: RequestHead;
  /** The header fields of the request over HTTP/2. */
  readonly fields: RawHeaders | undefined;
  readonly #key: string;
  readonly #options: ClientHandshakeOptions;
  readonly #reader: ResponseReader;
  #response: ResponseHead | undefined;
  /** The response over HTTP/2. */
  #received: RawHeaders | undefined;
  #trailing: Uint8Array[] = [];

  /**
   * Makes the request.
   *
   * @param options what to ask for
   * @throws {TypeError} for a header field that the handshake writes by itself, a protocol that is no
   * token, a host that is not a host with an optional port, or a target that is neither a path nor the
   * URL of a WebSocket
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

  /** The head of the response, once it was received. */
  get response(): ResponseHead | undefined {
    return this.#response;
  }

  /**
   * The bytes of the request; none over HTTP/2.
   *
   * @throws {TypeError} for a target or header field that would break out of its place
   */
  send(): Uint8Array {
    return this.fields === undefined ? serializeRequestHead(this.request) : EMPTY;
  }

  /**
   * Takes the next bytes, or null at the end of the transport; gives the head of the response once
   * it is whole. At most 16 interim responses (1xx, but not 101) are skipped before it.
   *
   * @throws {HandshakeError} "connection-lost" at an early end, "head-too-large" for more interim
   * responses, and as {@linkcode parseResponseHead}
   */
  receive(chunk: Uint8Array | null): ResponseHead | undefined {
    if (this.#response !== undefined) {
      // Joined when asked for: one by one that would be quadratic.
      if (chunk !== null) this.#trailing.push(chunk.slice());
      return undefined;
    }
    if (chunk === null) throw lost("response");
    const read = this.#asResponse(() => this.#reader.push(chunk));
    if (read === undefined) return undefined;
    this.#trailing.push(read.rest);
    return this.#response = read.head;
  }

  /** Takes the header fields of the response over HTTP/2, instead of `receive()`; gives its head. */
  takeFields(fields: RawHeaders): ResponseHead {
    if (this.#response !== undefined) throw new LocalProtocolError("Expected no second head");
    this.#received = fields;
    return this.#response = http2ResponseHead(fields);
  }

  /** What came behind the head: the first frames, or the body of a refusal. */
  get trailing(): Uint8Array {
    if (this.#trailing.length !== 1) this.#trailing = [concat(this.#trailing)];
    return this.#trailing[0];
  }

  /**
   * Checks the response (RFC 6455 §4.1).
   *
   * @throws {LocalProtocolError} before the head of the response is there
   * @throws {HandshakeError} "status", "upgrade", "accept", "subprotocol", "extension" or
   * "malformed-header"
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

  /** Runs a check of the response: the status of its error is the one that came, if one came. */
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
