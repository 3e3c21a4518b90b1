/**
 * Refuses handshakes, answers plain HTTP requests, and reports errors. The connection ends after the
 * response.
 */
import { handled, onAbort } from "../abortable.ts";
import type { Endpoint } from "../core/endpoint.ts";
import { BodyReader, requestFraming } from "../core/body.ts";
import { HandshakeError, refusal, wrongType } from "../core/error.ts";
import { refusalHeaders } from "../core/handshake.ts";
import { headerValue } from "../core/header.ts";
import type { RequestHead } from "../core/http1.ts";
import { concat } from "../core/message.ts";
import type { WebSocketConnection } from "../connection/connection.ts";
import { diagnostics } from "../inspect.ts";
import { toRequest } from "../http.ts";
import type { TransportReader } from "../opening.ts";
import type { ConnectionOptions } from "../options.ts";
import { Countdown, wallClock } from "../timers.ts";
import { kindOf } from "../core/options.ts";
import type { Address } from "../transport.ts";

/** What `onRefused` is told about the client. */
export interface RefusedInfo {
  /** The address of the client, if it is known. Behind a reverse proxy, it is the address of the proxy. */
  readonly remoteAddress: Address | undefined;
}

/** What becomes of a handshake. One of the callbacks is called, once. */
export interface Outcome {
  /** The error to refuse the request with, without reading it. */
  readonly fault?: HandshakeError | undefined;
  opened(ws: WebSocketConnection): void;
  /** Called when the handshake was refused and its transport is gone. */
  refused(error: unknown): void;
}

/** The callbacks that report errors. See `ServeOptions`. */
export interface Listeners {
  onError?: ((error: unknown) => void) | undefined;
  onRefused?:
    | ((error: HandshakeError, request: Request | undefined, info: RefusedInfo) => void)
    | undefined;
}

export function report(
  error: unknown,
  { onError = (error: unknown) => console.error(error) }: Listeners,
): void {
  call(() => onError(error), (second) => console.error(second));
}

export function reportRefused(
  error: HandshakeError,
  request: Request | undefined,
  remoteAddress: Address | undefined,
  listeners: Listeners,
): void {
  const { onRefused } = listeners;
  diagnostics?.refused(error, request, remoteAddress, isAnswer(error));
  if (onRefused === undefined) return;
  call(() => onRefused(error, request, { remoteAddress }), (thrown) => report(thrown, listeners));
}

/** Makes the Request of a head, or returns undefined if the head has no Request. */
export function requestOf(head: RequestHead | undefined, secure: boolean): Request | undefined {
  try {
    return head && toRequest(head, secure);
  } catch {
    return undefined;
  }
}

const CONTINUE = new TextEncoder().encode("HTTP/1.1 100 Continue\r\n\r\n");

/**
 * Reads the body of a plain request whose head has been read.
 * @param limit Maximum size, in bytes.
 * @throws {HandshakeError} If the body is longer (413), or is not framed as the head says (400, 501).
 */
export async function readBody(
  endpoint: Endpoint,
  reader: TransportReader,
  limit: number,
): Promise<Uint8Array> {
  const { version, headers } = endpoint.request!;
  const framing = requestFraming(endpoint.request!);
  const body = new BodyReader(framing);
  const input = endpoint.takeInput();
  const parts: Uint8Array[] = [];
  let size = typeof framing === "object" ? framing.length : 0;
  let isExpected = version === "1.1" && input.length === 0 &&
    headerValue(headers, "Expect")?.toLowerCase() === "100-continue";
  while (size <= limit && !body.finished) {
    // RFC 9110 §10.1.1: the client waits until the server wants the body.
    if (isExpected) reader.transport.write([CONTINUE]);
    isExpected = false;
    const chunk = input.length > 0 ? input.shift()! : await reader.read();
    if (chunk === null) body.end();
    else parts.push(body.push(chunk));
    if (body.failure !== undefined) throw refusal(400, body.failure.code, body.failure.message);
    if (framing === "chunked") size += parts.at(-1)!.length;
  }
  if (size <= limit) return concat(parts);
  throw refusal(413, "body", `The body of the request exceeds maxRequestBody (${limit})`);
}

/** Calls a listener. An asynchronous listener is not waited for, but its rejection is handled. */
function call(listener: () => unknown, onThrown: (error: unknown) => void): void {
  try {
    Promise.resolve(listener()).catch(onThrown);
  } catch (error) {
    onThrown(error);
  }
}

export function hookFailed(cause: unknown): HandshakeError {
  return new HandshakeError("A hook of the server failed", "hook-failed", { status: 500, cause });
}

interface Answer {
  /** The head; empty over HTTP/2. */
  head: Uint8Array;
  body: ReadableStream<Uint8Array> | null;
}

/** The response of `onRequest`, as an error. */
export class Refusal extends HandshakeError {
  readonly answer: Answer;
  /** Whether the request asked for no WebSocket. */
  readonly isPlain: boolean;

  /** @throws {TypeError} If `response` is not a Response, or cannot be sent. */
  constructor(response: Response, endpoint: Endpoint, isPlain: boolean) {
    const answer = answerOf(checkResponse(response), endpoint);
    super(`onRequest answered with status ${response.status}`, "rejected", {
      status: response.status,
    });
    this.answer = answer;
    this.isPlain = isPlain;
  }
}

/** Returns whether `onRequest` answered a plain request, which is no refused handshake. */
export function isAnswer(error: unknown): boolean {
  return error instanceof Refusal && error.isPlain;
}

/** Checks the value that `onRequest` returned. A Response of another realm or package is accepted. */
function checkResponse(response: unknown): Response {
  const isResponse = Object.prototype.toString.call(response) === "[object Response]";
  if (!isResponse && !(response instanceof Response)) {
    throw wrongType(`onRequest must return a Response or undefined, received ${kindOf(response)}`);
  }
  const { status, body, bodyUsed } = response as Response;
  // Response.error() has status 0, and the response of Deno.upgradeWebSocket() has 101.
  if (!(status >= 200)) {
    throw wrongType(
      `onRequest must return a Response with a status from 200 to 599, received ${status}`,
    );
  }
  if (bodyUsed || body?.locked) {
    throw wrongType(
      "onRequest must return a new Response for each request: the body of this one is in use",
    );
  }
  return response as Response;
}

/**
 * Answers with the status of the error, if it has one, and waits until the transport is gone. If
 * `respond` is given, it sends the head of the response.
 */
export async function refuse(
  reader: TransportReader,
  endpoint: Endpoint,
  error: HandshakeError,
  options: Pick<ConnectionOptions, "signal" | "closeTimeout"> & Listeners,
  respond?: (endpoint: Endpoint) => void,
): Promise<void> {
  const { transport } = reader;
  const { closeTimeout = 10_000, signal } = options;
  // The time that the client has to read a piece of the response, or to leave.
  let countdown: Countdown | undefined;
  const begin = () => {
    if (closeTimeout > 0) countdown ??= new Countdown(() => transport.destroy(), closeTimeout);
  };
  // A body may take any time, unless the server shuts down or the client has left.
  let isLast = false;
  const hurry = () => {
    isLast = true;
    begin();
  };
  const stopWatching = onAbort(signal, hurry);
  const gone = reader.dropInput(hurry);
  const write = async (bytes: Uint8Array) => {
    begin();
    await reader.write(bytes);
    if (isLast) return;
    countdown?.cancel();
    countdown = undefined;
  };
  try {
    if (error.status !== undefined) {
      const { head, body } = error instanceof Refusal
        ? error.answer
        : answerOf(refusalResponse(error, endpoint), endpoint);
      if (respond === undefined) await write(head);
      else respond(endpoint);
      if (body !== null) {
        // RFC 9110 §9.3.2: the response to HEAD has no body.
        if (endpoint.isHead) handled(body.cancel());
        else await sendBody(reader, endpoint, body, write);
      }
      transport.end();
    } else {
      transport.destroy();
    }
  } catch (fault) {
    // The body failed. Cut the connection, so that the client notices that the body is not complete.
    if (error instanceof Refusal && !reader.isClosed) report(fault, options);
    transport.destroy();
  }
  hurry();
  await gone;
  countdown?.cancel();
  stopWatching();
}

function refusalResponse(error: HandshakeError, { request }: Endpoint): Response {
  // The client must not see the error of a hook.
  const text = error.code === "hook-failed" ? "Internal Server Error" : error.message;
  const body = new TextEncoder().encode(`${text}\n`);
  const headers: [string, string][] = [
    ...refusalHeaders(error, request?.version),
    ["Content-Type", "text/plain; charset=utf-8"],
    ["Content-Length", String(body.length)],
  ];
  return new Response(body, { status: error.status, headers });
}

/** @throws {TypeError} If the head cannot be sent, or announces a body that is missing. */
function answerOf({ status, statusText, headers, body }: Response, endpoint: Endpoint): Answer {
  const fields = [...headers].filter(([name]) =>
    name !== "connection" && name !== "transfer-encoding" &&
    // RFC 9110 §8.6: a 204 response has no Content-Length.
    !(name === "content-length" && status === 204)
  );
  // RFC 9110 §6.6.1: a server with a clock says when it answered.
  if (!headers.has("date")) fields.push(["Date", new Date(wallClock()).toUTCString()]);
  const hasBody = body !== null;
  const head = endpoint.send({ type: "reject", status, statusText, headers: fields, hasBody });
  return { head, body };
}

async function sendBody(
  reader: TransportReader,
  endpoint: Endpoint,
  body: ReadableStream<Uint8Array>,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const source = body.getReader();
  // Cancel the body when the client has left. Otherwise a slow or endless body would continue.
  handled(reader.closed().then(() => source.cancel()));
  try {
    for (;;) {
      const { done, value = new Uint8Array(0) } = await source.read();
      if (reader.isClosed) return;
      if (!(value instanceof Uint8Array)) {
        throw wrongType(`The body of a Response must give bytes, received ${kindOf(value)}`);
      }
      const bytes = endpoint.send({ type: "rejectData", data: value, bodyFinished: done });
      if (bytes.length > 0) await write(bytes);
      if (done) return;
    }
  } catch (error) {
    handled(source.cancel(error));
    throw error;
  }
}
