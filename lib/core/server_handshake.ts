/**
 * The server's side of the opening handshake (RFC 6455 §4.2), bytes in and bytes out.
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
import type { OutgoingReject } from "./handshake_event.ts";
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
 * The server's side of the opening handshake: `receive()` until it gives the head of the request (or
 * `takeHead()`, or `takeFields()`), `check()`, then `accept()` or `reject()` for the bytes of the response.
 * The bytes after the head are in `trailing`. {@linkcode Endpoint} does all of this.
 */
export class ServerHandshake {
  readonly #reader: HeadReader<RequestHead>;
  #request: RequestHead | undefined;
  /** The request over HTTP/2. */
  #fields: RawHeaders | undefined;
  #offer: ReceivedOffer | undefined;
  #trailing: Uint8Array[] = [];

  /**
   * Makes a handshake that waits for its request.
   *
   * @param limits how large the head of the request may be
   */
  constructor(limits: HeadLimits = {}) {
    checkNested("limits", limits, HEAD_LIMITS);
    this.#reader = new HeadReader(parseRequestHead, limits);
  }

  /** The head of the request, once it was read. */
  get request(): RequestHead | undefined {
    return this.#request;
  }

  /** What the client offers, once it was checked. */
  get offer(): ReceivedOffer | undefined {
    return this.#offer;
  }

  /**
   * Takes the next bytes, or null at the end of the transport; gives the head of the request once
   * it is whole.
   *
   * @throws {HandshakeError} "connection-lost" at an early end, and as {@linkcode parseRequestHead}
   */
  receive(chunk: Uint8Array | null): RequestHead | undefined {
    if (this.#request !== undefined) {
      // Joined when asked for: one by one that would be quadratic.
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
   * Takes a head that another HTTP parser has read, instead of `receive()`.
   *
   * @param request the head; its header fields as they came, repeated ones kept
   * @param trailing what came behind the head. Default: nothing
   * @throws {LocalProtocolError} after another head
   */
  takeHead(request: RequestHead, trailing: Uint8Array = EMPTY): void {
    if (this.#request !== undefined) throw new LocalProtocolError("Expected no second head");
    this.#request = request;
    this.#trailing.push(trailing);
  }

  /**
   * Takes the header fields of a request over HTTP/2, instead of `receive()`.
   *
   * @throws {LocalProtocolError} after another head
   * @throws {HandshakeError} "malformed-header"
   */
  takeFields(fields: RawHeaders): void {
    this.takeHead(http2RequestHead(fields));
    this.#fields = fields;
  }

  /**
   * Whether the request is a HEAD, whose response has no body (RFC 9110 §9.3.2). The method is known also
   * of a request that is not whole or cannot be read.
   */
  get isHead(): boolean {
    return this.#request === undefined
      ? this.#reader.startsWith("HEAD ")
      : this.#request.method === "HEAD";
  }

  /** What came behind the head. */
  get trailing(): Uint8Array {
    if (this.#trailing.length !== 1) this.#trailing = [concat(this.#trailing)];
    return this.#trailing[0];
  }

  /**
   * Checks the request (RFC 6455 §4.2.1).
   *
   * @throws {HandshakeError} as {@linkcode checkRequest} or {@linkcode checkHttp2Request}
   */
  check(): ReceivedOffer & Partial<HandshakeRequest> {
    if (this.#request === undefined) throw new LocalProtocolError("Expected a request to check");
    return this.#offer = this.#fields === undefined
      ? checkRequest(this.#request)
      : checkHttp2Request(this.#fields);
  }

  /**
   * The response that agrees to a request that was checked.
   *
   * @throws {LocalProtocolError} for a subprotocol that was not offered, or
   * @throws {TypeError} for a header field that the handshake writes by itself or that would break
   * out of its place
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
   * The response that refuses the request, whatever was read of it.
   *
   * @throws {RangeError} for a status that is none of a refusal
   * @throws {TypeError} for a header field that would break out of its place, or that contradicts the others
   */
  reject(
    options: OutgoingReject,
  ): { response: ResponseHead; bytes: Uint8Array; framing: BodyFraming } {
    const { version = "1.1" } = this.#request ?? {};
    const { response, framing } = refusalResponse(options, { version, isHead: this.isHead });
    return { ...this.#answer(response), framing };
  }

  /** Over HTTP/2 there are no bytes. */
  #answer(response: ResponseHead): { response: ResponseHead; bytes: Uint8Array } {
    const bytes = this.#fields === undefined ? serializeResponseHead(response) : EMPTY;
    return { response, bytes };
  }
}
