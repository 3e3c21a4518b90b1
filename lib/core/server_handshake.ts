/**
 * The server's side of the opening handshake (RFC 6455 §4.2).
 *
 * @module
 */
import type { BodyFraming } from "./body.ts";
import { LocalProtocolError } from "./error.ts";
import {
  type AcceptOptions,
  checkHttp2Request,
  checkRequest,
  type HandshakeRequest,
  http2RequestHead,
  http2Response,
  http2ResponseHead,
  lost,
  type ReceivedOffer,
  refusalResponse,
  upgradeResponse,
} from "./handshake.ts";
import type { OutgoingReject } from "./event.ts";
import type { RawHeaders } from "./header.ts";
import {
  HEAD_LIMITS,
  type HeadLimits,
  HeadReader,
  parseRequestHead,
  type RequestHead,
  type ResponseHead,
  serializeResponseHead,
} from "./http1.ts";
import { concat } from "./message.ts";
import { checkNested } from "./options.ts";

const EMPTY = new Uint8Array(0);

/**
 * The server's side of the opening handshake. Call `receive()` until it returns the head of the
 * request (or `takeHead()`, or `takeFields()`), then `check()`, then `accept()` or `reject()`,
 * which return the bytes of the response. `trailing` has the bytes after the head.
 * {@linkcode Endpoint} does all of this.
 */
export class ServerHandshake {
  readonly #reader: HeadReader<RequestHead>;
  #request: RequestHead | undefined;
  #fields: RawHeaders | undefined;
  #offer: ReceivedOffer | undefined;
  #trailing: Uint8Array[] = [];

  /**
   * Makes a handshake that waits for a request.
   * @param limits The limits for the head of the request.
   */
  constructor(limits: HeadLimits = {}) {
    checkNested("limits", limits, HEAD_LIMITS);
    this.#reader = new HeadReader(parseRequestHead, limits);
  }

  /** The head of the request, or undefined until it has been received. */
  get request(): RequestHead | undefined {
    return this.#request;
  }

  /** What the client offers, or undefined until the request has been checked. */
  get offer(): ReceivedOffer | undefined {
    return this.#offer;
  }

  /**
   * Adds the next bytes, or null at the end of the transport. Returns the head of the request once
   * it is complete.
   * @throws {HandshakeError} If the transport ends too early ("connection-lost"), or
   * {@linkcode parseRequestHead} throws.
   */
  receive(chunk: Uint8Array | null): RequestHead | undefined {
    if (this.#request !== undefined) {
      // Joined when read: joining at each call would take quadratic time.
      if (chunk !== null) this.#trailing.push(chunk.slice());
      return undefined;
    }
    if (chunk === null) throw lost("request");
    const read = this.#reader.push(chunk);
    if (read === undefined) return undefined;
    this.#trailing.push(read.rest);
    return this.#request = read.head;
  }

  /**
   * Adds a head that another HTTP parser has read, instead of `receive()`.
   * @param request The head, with all header fields in their order.
   * @param trailing The bytes after the head.
   * @throws {LocalProtocolError} If there is a head already.
   */
  takeHead(request: RequestHead, trailing: Uint8Array = EMPTY): void {
    if (this.#request !== undefined) throw new LocalProtocolError("Expected no second head");
    this.#request = request;
    this.#trailing.push(trailing);
  }

  /**
   * Adds the header fields of a request over HTTP/2, instead of `receive()`.
   * @throws {LocalProtocolError} If there is a head already.
   * @throws {HandshakeError} If a pseudo-header field occurs twice ("malformed-header").
   */
  takeFields(fields: RawHeaders): void {
    this.takeHead(http2RequestHead(fields));
    this.#fields = fields;
  }

  /**
   * Whether the request is a HEAD, whose response has no body (RFC 9110 §9.3.2). This is also known
   * if the request is incomplete or invalid.
   */
  get isHead(): boolean {
    return this.#request === undefined
      ? this.#reader.startsWith("HEAD ")
      : this.#request.method === "HEAD";
  }

  /** The bytes after the head. */
  get trailing(): Uint8Array {
    if (this.#trailing.length !== 1) this.#trailing = [concat(this.#trailing)];
    return this.#trailing[0];
  }

  /**
   * Checks the request (RFC 6455 §4.2.1).
   * @throws {HandshakeError} If the request is wrong. Its `status` is the one to answer with.
   */
  check(): ReceivedOffer & Partial<HandshakeRequest> {
    if (this.#request === undefined) throw new LocalProtocolError("Expected a request to check");
    return this.#offer = this.#fields === undefined
      ? checkRequest(this.#request)
      : checkHttp2Request(this.#fields);
  }

  /**
   * Makes the response that accepts a request that has been checked.
   * @throws {LocalProtocolError} If the subprotocol was not offered.
   * @throws {TypeError} If a header field is one that the handshake writes itself or contains
   * characters that are not allowed.
   */
  accept(options: AcceptOptions = {}): { response: ResponseHead; bytes: Uint8Array } {
    if (this.#offer === undefined) {
      throw new LocalProtocolError("Expected a request that was checked");
    }
    return this.#answer(
      this.#fields === undefined
        ? upgradeResponse(this.#offer as HandshakeRequest, options)
        : http2ResponseHead(http2Response(this.#offer, options)),
    );
  }

  /**
   * Makes the response that refuses the request. The request may be incomplete or invalid.
   * @throws {RangeError} If the status is not one of a refusal.
   * @throws {TypeError} If a header field contains characters that are not allowed, or contradicts
   * another field.
   */
  reject(
    options: OutgoingReject,
  ): { response: ResponseHead; bytes: Uint8Array; framing: BodyFraming } {
    const { version = "1.1" } = this.#request ?? {};
    const { response, framing } = refusalResponse(options, { version, isHead: this.isHead });
    return { ...this.#answer(response), framing };
  }

  #answer(response: ResponseHead): { response: ResponseHead; bytes: Uint8Array } {
    const bytes = this.#fields === undefined ? serializeResponseHead(response) : EMPTY;
    return { response, bytes };
  }
}
