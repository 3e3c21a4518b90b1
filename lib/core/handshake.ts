/**
 * The opening handshake of both ends (RFC 6455 §4), bytes in and bytes out.
 *
 * @module
 */
import { HandshakeError, type HandshakeErrorCode, LocalProtocolError } from "./error.ts";
import {
  type ExtensionHeader,
  headerValue,
  headerValues,
  parseExtensions,
  parseProtocols,
  parseTokenList,
  parseUpgrade,
  type RawHeaders,
  serializeExtensions,
  serializeProtocols,
} from "./header.ts";
import {
  type HeadLimits,
  HeadReader,
  parseRequestHead,
  parseResponseHead,
  type RequestHead,
  type ResponseHead,
  serializeRequestHead,
  serializeResponseHead,
} from "./http1.ts";
import { concat } from "./message.ts";
import { base64, sha1 } from "./sha1.ts";

/** RFC 6455 §1.3. */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION = "13";
const EMPTY = new Uint8Array(0);

/** What both ends agreed on. */
export interface Agreement {
  /** The subprotocol, or an empty string. */
  readonly protocol: string;
  /** The extensions in use. */
  readonly extensions: readonly ExtensionHeader[];
}

/** What a client asks for. */
export interface ClientHandshakeOptions {
  /** The value of the Host header. */
  host: string;
  /** The request target: path and query. */
  target: string;
  /** The subprotocols offered, the preferred one first. Default: none */
  protocols?: readonly string[];
  /** The extensions offered, the preferred one first. Default: none */
  extensions?: readonly ExtensionHeader[];
  /** More header fields. Default: none */
  headers?: RawHeaders;
  /**
   * Whether a server that chooses none of the subprotocols offered is an error, as it is in a
   * browser. Default: false
   */
  requireProtocol?: boolean;
  /** How large the head of the response may be. */
  limits?: HeadLimits;
}

/** The header fields that the handshake writes by itself. */
const OWN_FIELDS = new Set([
  "host",
  "upgrade",
  "connection",
  "sec-websocket-key",
  "sec-websocket-version",
  "sec-websocket-accept",
  "sec-websocket-protocol",
  "sec-websocket-extensions",
  "content-length",
  "transfer-encoding",
]);

function checkExtraFields(headers: RawHeaders): void {
  for (const [name] of headers) {
    if (OWN_FIELDS.has(name.toLowerCase())) {
      throw new TypeError(`Expected no ${name} header, which the handshake writes by itself`);
    }
  }
}

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
  readonly #reader: HeadReader<ResponseHead>;
  #response: ResponseHead | undefined;
  #trailing: Uint8Array = EMPTY;

  /**
   * Makes the request.
   *
   * @param options what to ask for
   * @throws {TypeError} for a header field that the handshake writes by itself, or a protocol that
   * is no token
   */
  constructor(options: ClientHandshakeOptions) {
    const { host, target, protocols = [], extensions = [], headers = [] } = options;
    checkExtraFields(headers);
    this.#options = options;
    // RFC 6455 §4.1: a nonce of 16 random bytes.
    this.#key = base64(crypto.getRandomValues(new Uint8Array(16)));
    const fields: [string, string][] = [
      ["Host", host],
      ["Upgrade", "websocket"],
      ["Connection", "Upgrade"],
      ["Sec-WebSocket-Key", this.#key],
      ["Sec-WebSocket-Version", VERSION],
    ];
    if (protocols.length > 0) {
      fields.push(["Sec-WebSocket-Protocol", serializeProtocols(protocols)]);
    }
    if (extensions.length > 0) {
      fields.push(["Sec-WebSocket-Extensions", serializeExtensions(extensions)]);
    }
    this.request = { method: "GET", target, version: "1.1", headers: [...fields, ...headers] };
    this.#reader = new HeadReader(parseResponseHead, options.limits);
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
   * it is whole.
   *
   * @throws {HandshakeError} "connection-lost" at an early end, and as {@linkcode parseResponseHead}
   */
  receive(chunk: Uint8Array | null): ResponseHead | undefined {
    if (this.#response !== undefined) {
      this.#trailing = concat([this.#trailing, chunk ?? EMPTY]);
      return undefined;
    }
    if (chunk === null) throw lost("response");
    const read = this.#reader.push(chunk);
    if (read === undefined) return undefined;
    this.#trailing = read.rest;
    return this.#response = read.head;
  }

  /** What came behind the head: the first frames, or the body of a refusal. */
  get trailing(): Uint8Array {
    return this.#trailing;
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
    return { protocol: this.#checkProtocol(headers), extensions: this.#checkExtensions(headers) };
  }

  #checkProtocol(headers: RawHeaders): string {
    const { protocols = [], requireProtocol = false } = this.#options;
    const chosen = headerValue(headers, "Sec-WebSocket-Protocol");
    // RFC 6455 §4.1: a subprotocol that was not asked for fails the connection.
    const missing = chosen === undefined && requireProtocol && protocols.length > 0;
    if (missing || (chosen !== undefined && !protocols.includes(chosen))) {
      throw new HandshakeError(
        `Expected one of the subprotocols offered (${protocols.join(", ") || "none"}), received ${
          chosen ?? "none"
        }`,
        "subprotocol",
      );
    }
    return chosen ?? "";
  }

  #checkExtensions(headers: RawHeaders): ExtensionHeader[] {
    const { extensions: offered = [] } = this.#options;
    const values = headerValues(headers, "Sec-WebSocket-Extensions");
    const chosen = values.flatMap(parseExtensions);
    for (const { name } of chosen) {
      // RFC 6455 §4.1: so does an extension that was not asked for.
      if (!offered.some((offer) => offer.name === name)) {
        throw new HandshakeError(
          `Expected only extensions that were offered, received ${name}`,
          "extension",
        );
      }
    }
    return chosen;
  }
}

/** What a client asked for, as a server reads it. */
export interface HandshakeRequest {
  /** The key, as it came. */
  readonly key: string;
  /** The subprotocols offered, in the client's order. */
  readonly protocols: readonly string[];
  /** The extensions offered, in the client's order. */
  readonly extensions: readonly ExtensionHeader[];
  /** The Origin header, where there is one. */
  readonly origin: string | undefined;
}

/** What a server answers. */
export interface AcceptOptions {
  /** The subprotocol chosen. Default: none */
  protocol?: string;
  /** The extensions accepted. Default: none */
  extensions?: readonly ExtensionHeader[];
  /** More header fields. Default: none */
  headers?: RawHeaders;
}

/**
 * The server's side of the opening handshake: `receive()` until it gives the head of the request,
 * `check()`, then `accept()` for the bytes of the 101 response. What came behind the head is in
 * `trailing`.
 */
export class ServerHandshake {
  readonly #reader: HeadReader<RequestHead>;
  #request: RequestHead | undefined;
  #checked: HandshakeRequest | undefined;
  #trailing: Uint8Array = EMPTY;

  /**
   * Makes a handshake that waits for its request.
   *
   * @param limits how large the head of the request may be
   */
  constructor(limits: HeadLimits = {}) {
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
      this.#trailing = concat([this.#trailing, chunk ?? EMPTY]);
      return undefined;
    }
    if (chunk === null) throw lost("request");
    const read = this.#reader.push(chunk);
    if (read === undefined) return undefined;
    this.#trailing = read.rest;
    return this.#request = read.head;
  }

  /** What came behind the head. */
  get trailing(): Uint8Array {
    return this.#trailing;
  }

  /**
   * Checks the request (RFC 6455 §4.2.1).
   *
   * @throws {HandshakeError} "method", "not-upgrade", "http-version", "host", "body", "version",
   * "key" or "malformed-header"; its `status` is the one to answer with
   */
  check(): HandshakeRequest {
    if (this.#request === undefined) throw new LocalProtocolError("Expected a request to check");
    return this.#checked = checkRequest(this.#request);
  }

  /**
   * The bytes of the 101 response to a request that was checked.
   *
   * @throws {TypeError} for a subprotocol that was not offered, or
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
  if (method !== "GET") throw refusal(405, "method", `Expected the method GET, received ${method}`);
  checkUpgrade(headers, "not-upgrade", 426);
  if (version !== "1.1") {
    throw refusal(400, "http-version", `Expected HTTP/1.1, received HTTP/${version}`);
  }
  if (headerValues(headers, "Host").length !== 1) {
    throw refusal(400, "host", "Expected one Host header, received none or several");
  }
  checkNoBody(headers);
  checkVersion(headers);
  const key = headerValue(headers, "Sec-WebSocket-Key");
  // 16 bytes are 22 digits, the last of which has its four lowest bits unused, and two of padding.
  if (key === undefined || !/^[A-Za-z0-9+/]{21}[AQgw]==$/.test(key)) {
    throw refusal(
      400,
      "key",
      `Expected Sec-WebSocket-Key to be 16 bytes in base64, received ${key ?? "none"}`,
    );
  }
  const protocols = headerValues(headers, "Sec-WebSocket-Protocol").flatMap(parseProtocols);
  if (new Set(protocols).size !== protocols.length) {
    // RFC 6455 §4.1: the elements are unique.
    throw refusal(400, "malformed-header", "Expected each subprotocol once, received one twice");
  }
  return {
    key,
    protocols,
    extensions: headerValues(headers, "Sec-WebSocket-Extensions").flatMap(parseExtensions),
    origin: headerValue(headers, "Origin"),
  };
}

/** A request that a proxy in between could frame in another way is not let through. */
function checkNoBody(headers: RawHeaders): void {
  const lengths = headerValues(headers, "Content-Length");
  if (
    headerValues(headers, "Transfer-Encoding").length > 0 ||
    lengths.some((length) => length !== "0")
  ) {
    throw refusal(
      400,
      "body",
      "Expected a request without a body, received one that announces one",
    );
  }
}

function checkVersion(headers: RawHeaders): void {
  const version = headerValue(headers, "Sec-WebSocket-Version");
  if (version === VERSION) return;
  throw refusal(
    version === undefined ? 400 : 426,
    "version",
    `Expected Sec-WebSocket-Version ${VERSION}, received ${version ?? "none"}`,
  );
}

function checkUpgrade(headers: RawHeaders, code: HandshakeErrorCode, status?: number): void {
  const upgrade = headerValues(headers, "Upgrade");
  const connection = headerValues(headers, "Connection");
  const asked = upgrade.flatMap(parseUpgrade).some((name) => name.toLowerCase() === "websocket");
  const named = connection.flatMap((value) => parseTokenList("Connection", value))
    .some((name) => name.toLowerCase() === "upgrade");
  if (asked && named) return;
  throw new HandshakeError(
    `Expected an upgrade to websocket, received Upgrade: ${upgrade.join(", ") || "none"} and ` +
      `Connection: ${connection.join(", ") || "none"}`,
    code,
    { status },
  );
}

/** The value of Sec-WebSocket-Accept that answers a key (RFC 6455 §4.2.2). */
export function acceptToken(key: string): string {
  return base64(sha1(new TextEncoder().encode(key + GUID)));
}

/** The head of the 101 response (RFC 6455 §4.2.2). */
function acceptResponse(request: HandshakeRequest, options: AcceptOptions): ResponseHead {
  const { protocol = "", extensions = [], headers = [] } = options;
  checkExtraFields(headers);
  const fields: [string, string][] = [
    ["Upgrade", "websocket"],
    ["Connection", "Upgrade"],
    ["Sec-WebSocket-Accept", acceptToken(request.key)],
  ];
  if (protocol !== "") {
    if (!request.protocols.includes(protocol)) {
      throw new TypeError(
        `Expected one of the subprotocols offered (${request.protocols.join(", ") || "none"}), ` +
          `received ${protocol}`,
      );
    }
    fields.push(["Sec-WebSocket-Protocol", protocol]);
  }
  if (extensions.length > 0) {
    fields.push(["Sec-WebSocket-Extensions", serializeExtensions(extensions)]);
  }
  return {
    version: "1.1",
    status: 101,
    statusText: "Switching Protocols",
    headers: [...fields, ...headers],
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

function refusal(status: number, code: HandshakeErrorCode, message: string): HandshakeError {
  return new HandshakeError(message, code, { status });
}

function lost(what: string): HandshakeError {
  return new HandshakeError(
    `Expected the head of the ${what}, the connection ended before it was whole`,
    "connection-lost",
  );
}
