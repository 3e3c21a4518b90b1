/**
 * The opening handshake over one stream of HTTP/2 (RFC 8441), header fields in and header fields out:
 * an extended CONNECT request in place of the upgrade, without a key. From there on the stream carries
 * what a connection of its own would.
 *
 * @module
 */
import {
  type AcceptOptions,
  type Agreement,
  answerFields,
  checkAnswer,
  checkFields,
  checkNoBody,
  checkVersion,
  type HandshakeOffer,
  offerFields,
  readOffer,
  type ReceivedOffer,
  refusal,
  VERSION,
} from "./agreement.ts";
import { HandshakeError } from "./error.ts";
import { checkExtraFields, checkField } from "./handshake.ts";
import { headerValue, headerValues, type RawHeaders } from "./header.ts";
import type { RequestHead, ResponseHead } from "./http1.ts";
import { isAuthority, readTarget, requestUrl } from "./url.ts";

/** What a client asks for. */
export interface Http2RequestOptions extends HandshakeOffer {
  /** "https" for a wss URL, "http" for a ws URL. */
  scheme: "http" | "https";
  /** The host, and the port where it is not the default one. */
  authority: string;
  /** Path and query. */
  path: string;
  /** More header fields. Default: none */
  headers?: RawHeaders;
}

/** RFC 9113 §8.2.2: what belongs to a connection of HTTP/1.1 does not travel. */
const CONNECTION_FIELDS = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "transfer-encoding",
  "upgrade",
]);

/**
 * The header fields of the request (RFC 8441 §4, §5).
 *
 * @throws {TypeError} for a header field that the handshake writes by itself, that HTTP/2 does not have
 * or that would break out of its place, and for a subprotocol that is no token
 */
export function http2Request(options: Http2RequestOptions): RawHeaders {
  const { scheme, authority, path, headers = [] } = options;
  if (!isAuthority(authority)) {
    throw new TypeError(`Expected a host and a port, received ${JSON.stringify(authority)}`);
  }
  if (!path.startsWith("/") || readTarget(path) === undefined) {
    throw new TypeError(`Expected a path, received ${JSON.stringify(path)}`);
  }
  return [
    [":method", "CONNECT"],
    [":protocol", "websocket"],
    [":scheme", scheme],
    [":authority", authority],
    [":path", path],
    ["sec-websocket-version", VERSION],
    ...lowerCase(offerFields(options)),
    ...extraFields(headers),
  ];
}

/**
 * Checks a request for a WebSocket.
 *
 * @throws {HandshakeError} "method", "not-upgrade", "malformed-head", "host", "body", "version" or
 * "malformed-header"; its `status` is the one to answer with
 */
export function checkHttp2Request(fields: RawHeaders): ReceivedOffer {
  const method = headerValue(fields, ":method");
  if (method !== "CONNECT") {
    throw refusal(405, "method", `Expected the method CONNECT, received ${method ?? "none"}`);
  }
  const protocol = headerValue(fields, ":protocol");
  if (protocol !== "websocket") {
    // RFC 9220 §3 names the status that RFC 8441 leaves open.
    throw refusal(
      501,
      "not-upgrade",
      `Expected the :protocol websocket, received ${protocol ?? "none"}`,
    );
  }
  // RFC 8441 §4: both stand in an extended CONNECT, unlike in a plain one.
  const path = headerValue(fields, ":path");
  if (headerValue(fields, ":scheme") === undefined || path === undefined) {
    throw refusal(400, "malformed-head", "Expected :scheme and :path, received not both");
  }
  const head = http2RequestHead(fields);
  const { host } = requestUrl(head, true);
  for (const other of headerValues(fields, "host")) {
    // RFC 9113 §8.3.1: a Host field that contradicts :authority is a malformed request.
    if (requestUrl({ ...head, headers: [["host", other]] }, true).host === host) continue;
    throw refusal(400, "host", "Expected one host, received :authority and another one in Host");
  }
  checkFields(head.headers);
  checkNoBody(fields);
  // 426 would need a header that HTTP/2 does not have.
  checkVersion(fields, 400);
  return readOffer(fields);
}

/**
 * The header fields of the response to a request that was checked.
 *
 * @throws {LocalProtocolError} for a subprotocol that was not offered
 * @throws {TypeError} as {@linkcode http2Request}
 */
export function http2Response(offer: ReceivedOffer, options: AcceptOptions = {}): RawHeaders {
  return [
    [":status", "200"],
    ...lowerCase(answerFields(offer, options)),
    ...extraFields(options.headers ?? []),
  ];
}

/**
 * Checks the response.
 *
 * @throws {HandshakeError} "status", "subprotocol", "extension" or "malformed-header"
 */
export function checkHttp2Response(fields: RawHeaders, offer: HandshakeOffer): Agreement {
  const { status, headers } = http2ResponseHead(fields);
  // RFC 9110 §9.3.6: any status of success opens a tunnel.
  if (!(status >= 200 && status < 300)) {
    throw new HandshakeError(`Expected status 200, received ${status}`, "status");
  }
  return checkAnswer(headers, offer);
}

/**
 * A request as HTTP/1.1 would have it: a GET in place of a CONNECT, with a Host header.
 *
 * @throws {HandshakeError} "malformed-header"
 */
export function http2RequestHead(fields: RawHeaders): RequestHead {
  const method = headerValue(fields, ":method") ?? "";
  const authority = headerValue(fields, ":authority");
  const others = regularFields(fields).filter(([name]) => name.toLowerCase() !== "host");
  // RFC 9113 §8.3.1: it stands in the place of Host.
  const hosts = authority === undefined ? headerValues(fields, "host") : [authority];
  return {
    method: method === "CONNECT" ? "GET" : method,
    // RFC 9113 §8.5: a plain CONNECT has none.
    target: headerValue(fields, ":path") ?? "/",
    version: "2.0",
    headers: [...hosts.map((host): [string, string] => ["host", host]), ...others],
  };
}

/**
 * A response as HTTP/1.1 would have it.
 *
 * @throws {HandshakeError} "malformed-header"
 */
export function http2ResponseHead(fields: RawHeaders): ResponseHead {
  const status = Number(headerValue(fields, ":status"));
  return { version: "2.0", status, statusText: "", headers: regularFields(fields) };
}

/** The header fields of a response as HTTP/2 has them: those of the connection left out. */
export function http2ResponseFields({ status, headers }: ResponseHead): RawHeaders {
  const fields = lowerCase(headers).filter(([name]) => !CONNECTION_FIELDS.has(name));
  return [[":status", `${status}`], ...fields];
}

/** The header fields that belong to the refusal of a request with this error. */
export function http2RefusalHeaders({ code }: HandshakeError): [string, string][] {
  // RFC 9110 §15.5.6; RFC 6455 §4.4.
  if (code === "method") return [["allow", "CONNECT"]];
  if (code === "version") return [["sec-websocket-version", VERSION]];
  return [];
}

/** Those that are no pseudo-header fields (RFC 9113 §8.3). */
function regularFields(fields: RawHeaders): RawHeaders {
  return fields.filter(([name]) => !name.startsWith(":"));
}

/** RFC 9113 §8.2: names travel in lower case. */
function lowerCase(headers: RawHeaders): [string, string][] {
  return headers.map(([name, value]) => [name.toLowerCase(), value]);
}

function extraFields(headers: RawHeaders): [string, string][] {
  checkExtraFields(headers);
  for (const [name, value] of headers) {
    checkField(name, value);
    if (CONNECTION_FIELDS.has(name.toLowerCase())) {
      throw new TypeError(`Expected no ${name} header, which HTTP/2 does not have`);
    }
  }
  return lowerCase(headers);
}
