/**
 * The client's side of the opening handshake (RFC 6455 §4.1), bytes in and bytes out.
 *
 * @module
 */
import {
  type Agreement,
  checkAnswer,
  type HandshakeOffer,
  offerFields,
  VERSION,
} from "./agreement.ts";
import { HandshakeError, LocalProtocolError } from "./error.ts";
import { acceptToken, checkExtraFields, checkUpgrade, lost } from "./handshake.ts";
import { headerValue, type RawHeaders } from "./header.ts";
import {
  type HeadLimits,
  type RequestHead,
  type ResponseHead,
  ResponseReader,
  serializeRequestHead,
} from "./http1.ts";
import { concat } from "./message.ts";
import { checkKnown, type OptionNames } from "./options.ts";
import { base64 } from "./sha1.ts";
import { isAuthority, readTarget } from "./url.ts";

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
}

const CLIENT_HANDSHAKE_OPTIONS: OptionNames<ClientHandshakeOptions> = {
  host: true,
  target: true,
  protocols: true,
  extensions: true,
  requireProtocol: true,
  headers: true,
  limits: true,
};

/**
 * The client's side of the opening handshake: `send()`, then `receive()` until it gives the head of
 * the response, then `check()`. What came behind the head is in `trailing`.
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
  readonly #key: string;
  readonly #options: ClientHandshakeOptions;
  readonly #reader: ResponseReader;
  #response: ResponseHead | undefined;
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
    const { host, target, headers = [] } = options;
    checkExtraFields(headers);
    checkPlace(host, target);
    this.#options = options;
    // RFC 6455 §4.1: a nonce of 16 random bytes.
    this.#key = base64(crypto.getRandomValues(new Uint8Array(16)));
    const fields: [string, string][] = [
      ["Host", host],
      ["Upgrade", "websocket"],
      ["Connection", "Upgrade"],
      ["Sec-WebSocket-Key", this.#key],
      ["Sec-WebSocket-Version", VERSION],
      ...offerFields(options),
    ];
    this.request = { method: "GET", target, version: "1.1", headers: [...fields, ...headers] };
    this.#reader = new ResponseReader(options.limits);
  }

  /**
   * The bytes of the request.
   *
   * @throws {TypeError} for a target or header field that would break out of its place
   */
  send(): Uint8Array {
    return serializeRequestHead(this.request);
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
    const read = this.#reader.push(chunk);
    if (read === undefined) return undefined;
    this.#trailing = [read.rest];
    return this.#response = read.head;
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
    if (this.#response === undefined) throw new LocalProtocolError("Expected a response to check");
    const { version, status, statusText, headers } = this.#response;
    if (status !== 101) {
      throw new HandshakeError(`Expected status 101, received ${status} ${statusText}`, "status");
    }
    if (version !== "1.1") {
      throw new HandshakeError(`Expected HTTP/1.1, received HTTP/${version}`, "http-version");
    }
    checkUpgrade(headers, "upgrade");
    const accept = headerValue(headers, "Sec-WebSocket-Accept");
    if (accept !== acceptToken(this.#key)) {
      throw new HandshakeError(
        `Expected Sec-WebSocket-Accept to answer the key, received ${accept ?? "none"}`,
        "accept",
      );
    }
    return checkAnswer(headers, this.#options);
  }
}

/** RFC 9112 §3.2: where a request goes stands in two places, and must not reach out of them. */
function checkPlace(host: string, target: string): void {
  if (!isAuthority(host)) {
    throw new TypeError(`Expected a host and a port, received ${JSON.stringify(host)}`);
  }
  if (readTarget(target) === undefined) {
    throw new TypeError(`Expected a path or a URL as target, received ${JSON.stringify(target)}`);
  }
}
