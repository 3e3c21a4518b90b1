/**
 * The rules of the opening handshake over HTTP/1.1 (RFC 6455 §4) and over an HTTP/2 stream (RFC
 * 8441). HTTP/2 heads are lists of header fields; `http2RequestHead()` and `http2ResponseHead()`
 * convert them.
 */
import { type BodyFraming, bodyFraming } from "./body.ts";
import {
  HandshakeError,
  type HandshakeErrorCode,
  LocalProtocolError,
  refusal,
  wrongType,
  wrongValue,
} from "./error.ts";
import type { OutgoingOf } from "./event.ts";
import {
  checkField,
  type ExtensionHeader,
  hasTwice,
  headerValue,
  headerValues,
  isFieldValue,
  isNamed,
  isToken,
  parseExtensions,
  parseProtocols,
  parseTokenList,
  parseUpgrade,
  type RawHeaders,
  serializeExtensions,
  serializeProtocols,
} from "./header.ts";
import type { RequestHead, ResponseHead } from "./http1.ts";
import { base64, sha1 } from "./sha1.ts";
import { checkRequestUrl, isAuthority, readTarget, requestUrl, withoutCredentials } from "./url.ts";

/** RFC 6455 §1.3. */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const VERSION = "13";

/** The version in heads that were converted from HTTP/2. */
const HTTP2 = "2.0";

const UPGRADE = ["Upgrade", "websocket"] as const;
const CONNECTION = ["Connection", "Upgrade"] as const;

/** Header fields that the handshake writes itself. */
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

/** RFC 9113 §8.2.2: HTTP/2 does not have these header fields. */
const CONNECTION_FIELDS = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "transfer-encoding",
  "upgrade",
]);

/** What both ends agreed on. */
export interface Agreement {
  /** The subprotocol, or an empty string. */
  readonly protocol: string;
  /** The extensions in use, in order. */
  readonly extensions: readonly ExtensionHeader[];
}

/** What a client offers. */
export interface HandshakeOffer {
  /**
   * The offered subprotocols, in order of preference.
   * @default {[]}
   */
  protocols?: readonly string[] | undefined;
  /**
   * The offered extensions, in order of preference.
   * @default {[]}
   */
  extensions?: readonly ExtensionHeader[] | undefined;
  /**
   * Whether the handshake fails if the server chooses none of the offered subprotocols, as in a
   * browser.
   * @default {false}
   */
  requireProtocol?: boolean | undefined;
}

/** A client's offer, as a server has received it. */
export interface ReceivedOffer {
  /** The offered subprotocols, in the client's order. */
  readonly protocols: readonly string[];
  /** The offered extensions, in the client's order. */
  readonly extensions: readonly ExtensionHeader[];
  /** The value of the Origin header, if there is one. */
  readonly origin: string | undefined;
}

/** A client's request over HTTP/1.1, as a server has received it. */
export interface HandshakeRequest extends ReceivedOffer {
  /** The value of Sec-WebSocket-Key. */
  readonly key: string;
}

/** A server's answer to a request. */
export interface AcceptOptions {
  /** The chosen subprotocol. By default, none. */
  protocol?: string | undefined;
  /**
   * The accepted extensions.
   * @default {[]}
   */
  extensions?: readonly ExtensionHeader[] | undefined;
  /**
   * Additional header fields.
   * @default {[]}
   */
  headers?: RawHeaders | undefined;
}

export interface Http2RequestOptions extends HandshakeOffer {
  scheme: "http" | "https";
  /** The host, and the port unless it is the default port. */
  authority: string;
  path: string;
  headers?: RawHeaders;
}

// The request

/** Makes the head of a client's request, and its key (RFC 6455 §4.1). */
export function upgradeRequest(
  { host, target, headers = [] }: { host: string; target: string; headers?: RawHeaders },
  offer: HandshakeOffer,
): { head: RequestHead; key: string } {
  checkExtraFields(headers);
  // RFC 9112 §3.2: the target does not contain the host.
  checkAuthority(host);
  if (readTarget(target) === undefined) {
    throw wrongType(
      `Expected target to be a path or a URL, received ${withoutCredentials(target)}`,
    );
  }
  // RFC 6455 §4.1: the key is a nonce of 16 random bytes.
  const key = base64(crypto.getRandomValues(new Uint8Array(16)));
  const fields = [
    ["Host", host] as const,
    UPGRADE,
    CONNECTION,
    ["Sec-WebSocket-Key", key] as const,
    ["Sec-WebSocket-Version", VERSION] as const,
    ...agreementFields(offer.protocols, offer.extensions),
    ...headers,
  ];
  return { head: { method: "GET", target, version: "1.1", headers: fields }, key };
}

/** Makes the header fields of an extended CONNECT (RFC 8441 §4, §5). It has no key. */
export function http2Request(options: Http2RequestOptions): RawHeaders {
  const { scheme, authority, path, protocols, extensions, headers = [] } = options;
  checkAuthority(authority);
  if (!path.startsWith("/") || readTarget(path) === undefined) {
    throw wrongType(`Expected path to be an absolute path, received ${withoutCredentials(path)}`);
  }
  return [
    [":method", "CONNECT"],
    [":protocol", "websocket"],
    [":scheme", scheme],
    [":authority", authority],
    [":path", path],
    ["sec-websocket-version", VERSION],
    ...toLowerCase(agreementFields(protocols, extensions)),
    ...http2Fields(headers),
  ];
}

function checkAuthority(host: string): void {
  if (isAuthority(host)) return;
  throw wrongType(`Expected a host with an optional port, received ${withoutCredentials(host)}`);
}

/**
 * Checks a WebSocket request (RFC 6455 §4.2.1). The error's `status` is the one to answer with.
 * @param isParsed Whether our own parser has read the head, which has then checked the fields.
 */
export function checkRequest(head: RequestHead, isParsed = false): HandshakeRequest {
  const { method, headers } = head;
  const hasBody = announcesBody(headers);
  if (hasBody && !isUpgrade(headers)) throw plainBody();
  // An invalid host or target is reported before the other errors.
  checkRequestUrl(head, false);
  if (!isParsed) checkFields(headers);
  if (method !== "GET") throw refusal(405, "method", `The method is ${method} instead of GET`);
  if (!isUpgrade(headers)) throw notUpgrade(headers, "not-upgrade", 426);
  if (head.version !== "1.1") {
    throw refusal(400, "http-version", `The request uses HTTP/${head.version} instead of HTTP/1.1`);
  }
  if (hasBody) throw unexpectedBody();
  const version = headerValue(headers, "Sec-WebSocket-Version");
  if (version !== VERSION) throw wrongVersion(version, 426);
  const key = headerValue(headers, "Sec-WebSocket-Key");
  // 22 digits of base64 and 2 of padding are 16 bytes. The last digit has four unused bits, and RFC
  // 4648 §3.5 lets a decoder accept any value in them.
  if (key === undefined || !/^[A-Za-z0-9+/]{22}==$/.test(key)) {
    throw refusal(
      400,
      "key",
      key === undefined
        ? "The request has no Sec-WebSocket-Key"
        : "Sec-WebSocket-Key is not 16 bytes in base64",
    );
  }
  const { protocols, extensions, origin } = readOffer(headers);
  return { key, protocols, extensions, origin };
}

/** Checks a WebSocket request over HTTP/2. The error's `status` is the one to answer with. */
export function checkHttp2Request(fields: RawHeaders): ReceivedOffer {
  const method = headerValue(fields, ":method");
  if (method !== "CONNECT") {
    throw refusal(405, "method", `The method is ${method ?? "missing"} instead of CONNECT`);
  }
  const protocol = headerValue(fields, ":protocol");
  if (protocol !== "websocket") {
    // RFC 8441 names no status here; RFC 9220 §3 does.
    throw refusal(
      501,
      "not-upgrade",
      `The :protocol is ${protocol ?? "missing"} instead of websocket`,
    );
  }
  // RFC 8441 §4: unlike a plain CONNECT, an extended CONNECT has both fields.
  const scheme = headerValue(fields, ":scheme");
  if (scheme === undefined || headerValue(fields, ":path") === undefined) {
    throw refusal(400, "malformed-head", "The request has no :scheme or no :path");
  }
  const head = http2RequestHead(fields);
  const hostOf = (head: RequestHead) => requestUrl(head, scheme === "https").host;
  const host = hostOf(head);
  for (const other of headerValues(fields, "host")) {
    // RFC 9113 §8.3.1: a Host field that contradicts :authority is a malformed request.
    if (hostOf({ ...head, headers: [["host", other]] }) === host) continue;
    throw refusal(400, "host", "The request has one host in :authority and another in Host");
  }
  checkFields(head.headers);
  if (announcesBody(fields)) throw unexpectedBody();
  const version = headerValue(fields, "Sec-WebSocket-Version");
  // Status 426 requires an Upgrade header, which HTTP/2 does not have.
  if (version !== VERSION) throw wrongVersion(version, 400);
  return readOffer(fields);
}

/** RFC 9110 §15.5.14: a plain request with a body is refused, because hooks cannot see the body. */
export function plainBody(): HandshakeError {
  return refusal(413, "body", "A request that asks for no WebSocket must not have a body");
}

/** Checks header fields, because another parser may have read them. */
function checkFields(headers: RawHeaders): void {
  if (headers.every((field) => isToken(field[0]) && isFieldValue(field[1]))) return;
  throw refusal(400, "malformed-head", "A header field has a character that is not allowed");
}

/** A proxy could frame the body of a WebSocket request in another way. */
function unexpectedBody(): HandshakeError {
  return refusal(400, "body", "A WebSocket request must not have a body");
}

/** RFC 9112 §6.3. */
function announcesBody(headers: RawHeaders): boolean {
  for (const field of headers) {
    if (isNamed(field[0], "Transfer-Encoding")) return true;
    if (isNamed(field[0], "Content-Length") && field[1] !== "0") return true;
  }
  return false;
}

/** RFC 6455 §4.4; `unknown` is the status for other versions. */
function wrongVersion(version: string | undefined, unknown: number): HandshakeError {
  return refusal(
    version === undefined ? 400 : unknown,
    "version",
    `Sec-WebSocket-Version is ${version ?? "missing"} instead of ${VERSION}`,
  );
}

function notUpgrade(
  headers: RawHeaders,
  code: HandshakeErrorCode,
  status?: number,
): HandshakeError {
  const upgrade = headerValues(headers, "Upgrade");
  const connection = headerValues(headers, "Connection");
  return new HandshakeError(
    `The ${status === undefined ? "response" : "request"} has no upgrade to websocket ` +
      `(Upgrade: ${upgrade.join(", ") || "none"}, Connection: ${connection.join(", ") || "none"})`,
    code,
    { status },
  );
}

/** Whether a head asks for the upgrade, or agrees to it. */
function isUpgrade(headers: RawHeaders): boolean {
  return lists(headers, "Upgrade", "websocket") && lists(headers, "Connection", "upgrade");
}

/** Returns whether one of the fields with this name contains an element, in any case. */
function lists(headers: RawHeaders, name: "Upgrade" | "Connection", element: string): boolean {
  let isFound = false;
  for (const field of headers) {
    if (!isNamed(field[0], name)) continue;
    // The usual value has one element.
    if (field[1].toLowerCase() === element) isFound = true;
    else if (elementsOf(name, field[1]).some((one) => one.toLowerCase() === element)) {
      isFound = true;
    }
  }
  return isFound;
}

function elementsOf(name: "Upgrade" | "Connection", value: string): string[] {
  return name === "Upgrade" ? parseUpgrade(value) : parseTokenList(name, value);
}

function readOffer(headers: RawHeaders): ReceivedOffer {
  const protocols = headerValues(headers, "Sec-WebSocket-Protocol").flatMap(parseProtocols);
  if (hasTwice(protocols)) {
    throw refusal(400, "malformed-header", "The request offers a subprotocol twice");
  }
  return {
    protocols,
    extensions: headerValues(headers, "Sec-WebSocket-Extensions").flatMap(parseExtensions),
    origin: headerValue(headers, "Origin"),
  };
}

// The response

/** Makes the head of the 101 response (RFC 6455 §4.2.2). */
export function upgradeResponse(
  key: string,
  { protocol = "", extensions, headers = [] }: AcceptOptions,
): ResponseHead {
  checkExtraFields(headers);
  const accept = ["Sec-WebSocket-Accept", acceptToken(key)] as const;
  const fields: (readonly [string, string])[] = [UPGRADE, CONNECTION, accept];
  const agreed = agreementFields(protocol === "" ? [] : [protocol], extensions);
  for (const field of agreed) fields.push(field);
  for (const field of headers) fields.push(field);
  return { version: "1.1", status: 101, statusText: "Switching Protocols", headers: fields };
}

/** Makes the 101 response to a request that has been accepted, as it was sent. */
export function upgradeResponseTo(request: RequestHead, answer: AcceptOptions): ResponseHead {
  return upgradeResponse(headerValue(request.headers, "Sec-WebSocket-Key")!, answer);
}

/** Makes the header fields of the response over HTTP/2 to a request that has been checked. */
export function http2Response(
  { protocol = "", extensions, headers = [] }: AcceptOptions,
): RawHeaders {
  return [
    [":status", "200"],
    ...toLowerCase(agreementFields(protocol === "" ? [] : [protocol], extensions)),
    ...http2Fields(headers),
  ];
}

/** Computes the value of Sec-WebSocket-Accept for a key (RFC 6455 §4.2.2). */
export function acceptToken(key: string): string {
  return base64(sha1(key + GUID));
}

export function notOffered(protocol: string): LocalProtocolError {
  return new LocalProtocolError(
    `Cannot choose the subprotocol ${protocol}: the client did not offer it`,
  );
}

function agreementFields(
  protocols: readonly string[] = [],
  extensions: readonly ExtensionHeader[] = [],
): [string, string][] {
  const fields: [string, string][] = [];
  if (protocols.length > 0) fields.push(["Sec-WebSocket-Protocol", serializeProtocols(protocols)]);
  if (extensions.length > 0) {
    fields.push(["Sec-WebSocket-Extensions", serializeExtensions(extensions)]);
  }
  return fields;
}

/** Checks the response to a request, except the chosen extensions (RFC 6455 §4.1). */
export function checkResponse(head: ResponseHead, key: string, offer: HandshakeOffer): Agreement {
  if (!accepts(head)) throw wrongStatus(head);
  if (head.version !== HTTP2) checkUpgrade(head, key);
  return readAnswer(head.headers, offer);
}

function checkUpgrade({ version, headers }: ResponseHead, key: string): void {
  if (version !== "1.1") {
    throw new HandshakeError(
      `The response uses HTTP/${version} instead of HTTP/1.1`,
      "http-version",
    );
  }
  // RFC 6455 §4.1: unlike a request, a response names no other protocol.
  const isOther = ([name, value]: RawHeaders[number]) =>
    isNamed(name, "Upgrade") && value.toLowerCase() !== "websocket";
  if (!isUpgrade(headers) || headers.some(isOther)) throw notUpgrade(headers, "upgrade");
  const accept = headerValue(headers, "Sec-WebSocket-Accept");
  if (accept !== acceptToken(key)) {
    throw new HandshakeError(
      accept === undefined
        ? "The response has no Sec-WebSocket-Accept"
        : `Sec-WebSocket-Accept does not match the key of the request: ${accept}`,
      "accept",
    );
  }
}

/** Returns whether a response accepts the WebSocket. */
export function accepts({ version, status }: ResponseHead): boolean {
  // RFC 9110 §9.3.6: any successful status opens a tunnel.
  return version === HTTP2 ? status >= 200 && status < 300 : status === 101;
}

export function wrongStatus({ version, status, statusText }: ResponseHead): HandshakeError {
  const expected = version === HTTP2 ? "200" : "101";
  const received = `${status} ${statusText}`.trimEnd();
  return new HandshakeError(`The server answered ${received} instead of ${expected}`, "status");
}

function readAnswer(
  headers: RawHeaders,
  { protocols = [], requireProtocol = false }: HandshakeOffer,
): Agreement {
  const protocol = headerValue(headers, "Sec-WebSocket-Protocol");
  // RFC 6455 §4.1: the client fails the connection if the subprotocol was not offered.
  const missing = protocol === undefined && requireProtocol && protocols.length > 0;
  if (missing || (protocol !== undefined && !protocols.includes(protocol))) {
    throw new HandshakeError(
      protocol === undefined
        // A subprotocol may contain a token.
        ? "The server chose none of the subprotocols offered"
        : `The server chose the subprotocol ${protocol}, which was not offered`,
      "subprotocol",
    );
  }
  const extensions = headerValues(headers, "Sec-WebSocket-Extensions").flatMap(parseExtensions);
  return { protocol: protocol ?? "", extensions };
}

// The refusal

/** Returns the header fields that a refusal with this error needs. */
export function refusalHeaders(
  { status, code }: Pick<HandshakeError, "status" | "code">,
  version = "1.1",
): [string, string][] {
  if (version === HTTP2) {
    if (code === "method") return [["allow", "CONNECT"]];
    return code === "version" ? [["sec-websocket-version", VERSION]] : [];
  }
  // RFC 9110 §15.5.6, §15.5.22; for the version RFC 6455 §4.2.2.
  if (status === 405) return [["Allow", "GET"]];
  if (status === 426) return [["Upgrade", "websocket"], ["Sec-WebSocket-Version", VERSION]];
  return [];
}

/**
 * Makes the head of a refusal, and determines how its body is framed.
 * @throws {RangeError} If the status is not one of a refusal.
 * @throws {TypeError} If the header fields do not match the body.
 */
export function refusalResponse(
  { status = 400, statusText = "", headers = [], hasBody = false }: OutgoingOf<"reject">,
  request: { version: string; isHead: boolean; isConnect: boolean },
): { response: ResponseHead; framing: BodyFraming } {
  // RFC 9110 §9.3.6: any 2xx would accept a CONNECT.
  const least = request.isConnect ? 300 : 200;
  if (!Number.isInteger(status) || status < least || status > 599) {
    throw wrongValue(`Expected status to be an integer from ${least} to 599, received ${status}`);
  }
  const isHttp2 = request.version === HTTP2;
  const fields = headers.filter(([name]) => !isHttp2 || !isConnectionField(name));
  const given = (name: string) => fields.some((field) => isNamed(field[0], name));
  if (!given("Content-Length") && !given("Transfer-Encoding")) {
    // RFC 9110 §8.6: these statuses have no Content-Length.
    if (!hasBody && status !== 204 && status !== 304) fields.push(["Content-Length", "0"]);
    // RFC 9112 §6.1: HTTP/1.0 clients do not know the chunked coding.
    const isChunked = hasBody && request.version !== "1.0" && !isHttp2;
    if (isChunked) fields.push(["Transfer-Encoding", "chunked"]);
  }
  // RFC 9110 §7.8: Connection must name Upgrade.
  if (!isHttp2 && !given("Connection")) {
    fields.push(["Connection", given("Upgrade") ? "Upgrade, close" : "close"]);
  }
  const version = isHttp2 ? HTTP2 : "1.1";
  const response = { version, status, statusText, headers: fields };
  return { response, framing: refusalFraming(response, hasBody, request.isHead) };
}

/** Determines how a client will read the body, and checks that this matches the body to send. */
function refusalFraming(response: ResponseHead, hasBody: boolean, isHead: boolean): BodyFraming {
  const { status, headers } = response;
  const coding = headerValues(headers, "Transfer-Encoding").join(", ").toLowerCase();
  const hasLength = headerValues(headers, "Content-Length").length > 0;
  if ((coding !== "" && coding !== "chunked") || (coding !== "" && hasLength)) {
    throw wrongType(
      `Expected Content-Length or Transfer-Encoding: chunked, received ${
        hasLength ? "both" : coding
      }`,
    );
  }
  let framing: BodyFraming;
  try {
    framing = bodyFraming(response);
  } catch (error) {
    throw error instanceof HandshakeError ? wrongType(error.message) : error;
  }
  if (hasBody && (status === 204 || status === 304)) {
    throw wrongType(`A response with the status ${status} cannot have a body`);
  }
  const isAnnounced = framing === "chunked" || (typeof framing === "object" && framing.length > 0);
  // RFC 9110 §9.3.2: the response to HEAD announces the body that GET would get.
  if (!hasBody && !isHead && isAnnounced) {
    throw wrongType("The header fields announce a body, but hasBody is false");
  }
  return framing;
}

export function lost(what: string): HandshakeError {
  return new HandshakeError(
    `The connection ended before the head of the ${what} was complete`,
    "connection-lost",
  );
}

// Header fields

/** Checks header fields of the caller, which must not contradict those of the handshake. */
export function checkExtraFields(headers: RawHeaders): void {
  for (const [name, value] of headers) {
    if (OWN_FIELDS.has(name.toLowerCase())) {
      throw wrongType(`Cannot set the ${name} header: the handshake writes it`);
    }
    checkField(name, value);
  }
}

export function extraFields(headers: RawHeaders): RawHeaders {
  return headers.filter((field) => !OWN_FIELDS.has(field[0].toLowerCase()));
}

/** Converts the head of a request over HTTP/2 to that of HTTP/1.1: a GET with a Host header. */
export function http2RequestHead(fields: RawHeaders): RequestHead {
  const method = headerValue(fields, ":method") ?? "";
  const authority = headerValue(fields, ":authority");
  const others = regularFields(fields).filter(([name]) => name.toLowerCase() !== "host");
  // RFC 9113 §8.3.1: :authority replaces Host.
  const hosts = authority === undefined ? headerValues(fields, "host") : [authority];
  return {
    method: method === "CONNECT" ? "GET" : method,
    // RFC 9113 §8.5: a plain CONNECT has no path.
    target: headerValue(fields, ":path") ?? "/",
    version: HTTP2,
    headers: [...hosts.map((host): [string, string] => ["host", host]), ...others],
  };
}

/** Converts the head of a response over HTTP/2 to that of HTTP/1.1. */
export function http2ResponseHead(fields: RawHeaders): ResponseHead {
  const status = Number(headerValue(fields, ":status"));
  return { version: HTTP2, status, statusText: "", headers: regularFields(fields) };
}

/** Returns the header fields of a response over HTTP/2, without the connection's fields. */
export function http2ResponseFields({ status, headers }: ResponseHead): RawHeaders {
  const fields = toLowerCase(headers).filter(([name]) => !isConnectionField(name));
  return [[":status", `${status}`], ...fields];
}

/** RFC 9113 §8.3. */
function regularFields(fields: RawHeaders): RawHeaders {
  return fields.filter(([name]) => !name.startsWith(":"));
}

/** RFC 9113 §8.2: field names are in lower case. */
function toLowerCase(headers: RawHeaders): [string, string][] {
  return headers.map(([name, value]) => [name.toLowerCase(), value]);
}

function isConnectionField(name: string): boolean {
  return CONNECTION_FIELDS.has(name.toLowerCase());
}

/** Checks the caller's header fields and converts them for HTTP/2. */
function http2Fields(headers: RawHeaders): [string, string][] {
  checkExtraFields(headers);
  for (const [name] of headers) {
    if (isConnectionField(name)) {
      throw wrongType(`Cannot set the ${name} header: HTTP/2 does not have it`);
    }
  }
  return toLowerCase(headers);
}
