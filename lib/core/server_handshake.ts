/**
 * The server's side of the opening handshake (RFC 6455 §4.2), bytes in and bytes out.
 *
 * @module
 */
import {
  type AcceptOptions,
  answerFields,
  checkFields,
  checkNoBody,
  checkVersion,
  readOffer,
  type ReceivedOffer,
  refusal,
  VERSION,
} from "./agreement.ts";
import { LocalProtocolError } from "./error.ts";
import { acceptToken, checkExtraFields, checkUpgrade, lost } from "./handshake.ts";
import { headerValue } from "./header.ts";
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
import { requestUrl } from "./url.ts";

const EMPTY = new Uint8Array(0);
/** Before the head was read. */
const NONE: Uint8Array[] = [];

/** What a client asked for, as a server reads it. */
export interface HandshakeRequest extends ReceivedOffer {
  /** The key, as it came. */
  readonly key: string;
}

/**
 * The server's side of the opening handshake: `receive()` until it gives the head of the request (or
 * `takeHead()`), `check()`, then `accept()` for the bytes of the 101 response. What came behind the
 * head is in `trailing`.
 */
export class ServerHandshake {
  readonly #reader: HeadReader<RequestHead>;
  #request: RequestHead | undefined;
  #checked: HandshakeRequest | undefined;
  #trailing: Uint8Array[] = NONE;

  /**
   * Makes a handshake that waits for its request.
   *
   * @param limits how large the head of the request may be
   */
  constructor(limits: HeadLimits = {}) {
    checkNested("limits", limits, HEAD_LIMITS);
    this.#reader = new HeadReader(parseRequestHead, limits);
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
    this.#trailing = [read.rest];
    return this.#request = read.head;
  }

  /**
   * Takes a head that another HTTP parser has read, in place of `receive()`.
   *
   * @param request the head; its header fields as they came, repeated ones kept
   * @param trailing what came behind the head. Default: nothing
   */
  takeHead(request: RequestHead, trailing: Uint8Array = EMPTY): void {
    if (this.#request !== undefined) throw new LocalProtocolError("Expected no second head");
    this.#request = request;
    this.#trailing = [trailing];
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
   * @throws {HandshakeError} "host", "malformed-head", "method", "not-upgrade", "http-version",
   * "body", "version", "key" or "malformed-header"; its `status` is the one to answer with
   */
  check(): HandshakeRequest {
    if (this.#request === undefined) throw new LocalProtocolError("Expected a request to check");
    return this.#checked = checkRequest(this.#request);
  }

  /**
   * The bytes of the 101 response to a request that was checked.
   *
   * @throws {LocalProtocolError} for a subprotocol that was not offered, or
   * @throws {TypeError} for a header field that the handshake writes by itself or that would break
   * out of its place
   */
  accept(options: AcceptOptions = {}): { response: ResponseHead; bytes: Uint8Array } {
    if (this.#checked === undefined) {
      throw new LocalProtocolError("Expected a request that was checked");
    }
    const response = acceptResponse(this.#checked, options);
    return { response, bytes: serializeResponseHead(response) };
  }
}

/**
 * Checks the head of a request for a WebSocket (RFC 6455 §4.2.1).
 *
 * @throws {HandshakeError} as {@linkcode ServerHandshake.check}
 */
export function checkRequest(head: RequestHead): HandshakeRequest {
  const { method, version, headers } = head;
  // Which URL is asked for, and whether any, matters more than what is asked of it.
  requestUrl(head, false);
  checkFields(headers);
  if (method !== "GET") throw refusal(405, "method", `Expected the method GET, received ${method}`);
  checkUpgrade(headers, "not-upgrade", 426);
  if (version !== "1.1") {
    throw refusal(400, "http-version", `Expected HTTP/1.1, received HTTP/${version}`);
  }
  checkNoBody(headers);
  checkVersion(headers, 426);
  const key = headerValue(headers, "Sec-WebSocket-Key");
  // 16 bytes are 22 digits and two of padding. The four lowest bits of the last digit have no meaning:
  // RFC 4648 §3.5 leaves it to the decoder whether they must be 0.
  if (key === undefined || !/^[A-Za-z0-9+/]{22}==$/.test(key)) {
    throw refusal(
      400,
      "key",
      `Expected Sec-WebSocket-Key to be 16 bytes in base64, received ${key ?? "none"}`,
    );
  }
  return { key, ...readOffer(headers) };
}

/** The head of the 101 response (RFC 6455 §4.2.2). */
function acceptResponse(request: HandshakeRequest, options: AcceptOptions): ResponseHead {
  const { headers = [] } = options;
  checkExtraFields(headers);
  const fields: [string, string][] = [
    ["Upgrade", "websocket"],
    ["Connection", "Upgrade"],
    ["Sec-WebSocket-Accept", acceptToken(request.key)],
  ];
  fields.push(...answerFields(request, options));
  return {
    version: "1.1",
    status: 101,
    statusText: "Switching Protocols",
    headers: headers.length === 0 ? fields : [...fields, ...headers],
  };
}

/** The header fields that belong to a refusal with this status. */
export function refusalHeaders(status: number): [string, string][] {
  // RFC 9110 §15.5.6, §15.5.22; RFC 6455 §4.2.2 for the version.
  if (status === 405) return [["Allow", "GET"]];
  if (status === 426) {
    return [["Upgrade", "websocket"], ["Sec-WebSocket-Version", VERSION]];
  }
  return [];
}
