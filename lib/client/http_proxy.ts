/**
 * Asking an HTTP proxy for a tunnel: the method CONNECT (RFC 9110 §9.3.6).
 *
 * A file of its own because it is one of two ways to ask.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import { checkExtraFields, lost } from "../core/handshake.ts";
import { headerValues, type RawHeaders } from "../core/header.ts";
import { type ResponseHead, ResponseReader, serializeRequestHead } from "../core/http1.ts";
import { formatAuthority } from "../core/url.ts";
import { basicAuthorization } from "../http.ts";
import { type OnTimeout, readRefusal, type TransportReader } from "../opening.ts";

/** What the proxy is told beside the server. */
export interface HttpProxy {
  readonly username: string;
  readonly password: string;
  readonly headers: RawHeaders;
}

/** @throws {TypeError} for a header field that cannot be sent */
export function connectRequest(
  { hostname, port }: { hostname: string; port: number },
  { username, password, headers }: HttpProxy,
): Uint8Array {
  const target = formatAuthority(hostname, port);
  checkExtraFields(headers);
  const fields: [string, string][] = [["Host", target]];
  // RFC 9110 §11.7.1
  const given = headerValues(headers, "Proxy-Authorization").length > 0;
  if ((username !== "" || password !== "") && !given) {
    fields.push(["Proxy-Authorization", basicAuthorization(username, password)]);
  }
  return serializeRequestHead({
    method: "CONNECT",
    target,
    version: "1.1",
    headers: [...fields, ...headers],
  });
}

/**
 * Asks for a tunnel to the server, and waits for it.
 *
 * @throws {HandshakeError} "proxy", or "connection-lost"
 */
export async function connectByHttp(
  line: TransportReader,
  server: { hostname: string; port: number },
  proxy: HttpProxy,
  onTimeout: OnTimeout,
): Promise<void> {
  line.transport.write([connectRequest(server, proxy)]);
  const { head, rest } = await readResponse(line);
  // RFC 9110 §9.3.6: any 2xx, whatever it says of its body.
  if (head.status < 200 || head.status > 299) {
    throw await readRefusal(refusal(head), head, rest, line, onTimeout);
  }
  if (rest.length > 0) {
    throw new HandshakeError(
      `Expected nothing behind the proxy's answer, received ${rest.length} bytes`,
      "proxy",
    );
  }
}

async function readResponse(
  line: TransportReader,
): Promise<{ head: ResponseHead; rest: Uint8Array }> {
  const reader = new ResponseReader();
  for (;;) {
    const chunk = await line.read();
    if (chunk === null) throw lost("proxy's response");
    const read = pushTo(reader, chunk);
    if (read !== undefined) return read;
  }
}

function pushTo(
  reader: ResponseReader,
  chunk: Uint8Array,
): { head: ResponseHead; rest: Uint8Array } | undefined {
  try {
    return reader.push(chunk);
  } catch (cause) {
    const { message } = cause as Error;
    throw new HandshakeError(`The proxy's answer cannot be read: ${message}`, "proxy", { cause });
  }
}

function refusal({ status, statusText }: ResponseHead): HandshakeError {
  return new HandshakeError(
    `Expected a status of 2xx from the proxy, received ${status} ${statusText}`,
    "proxy",
  );
}
