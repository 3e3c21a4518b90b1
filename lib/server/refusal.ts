/**
 * Refusing a handshake, or answering plain HTTP: a response whose end is the end of the connection.
 *
 * A file of its own because it is HTTP, and the rest of the server is not.
 *
 * @module
 */
import { handled, onAbort } from "../abortable.ts";
import { BodyWriter } from "../core/body.ts";
import { HandshakeError } from "../core/error.ts";
import {
  type BodyFraming,
  bodyFraming,
  type RequestHead,
  type ResponseHead,
  serializeResponseHead,
} from "../core/http1.ts";
import { refusalHeaders } from "../core/server_handshake.ts";
import type { Cancellable, TransportReader } from "../opening.ts";
import type { ConnectionOptions } from "../options.ts";
import { deadline } from "../timers.ts";
import { kindOf } from "../core/options.ts";
import { type Listeners, report } from "./hooks.ts";

/** How a response leaves over HTTP/2, which has frames of its own for it. */
export interface Responder {
  /** Sends the head. */
  respond(head: ResponseHead): void;
  /** The header fields that belong to the refusal with this error. */
  refusalHeaders(error: HandshakeError): [string, string][];
}

/** The part of a request that its answer depends on. */
type Asked = Pick<RequestHead, "method" | "version">;

/** A response that is ready to be sent. */
interface Answer {
  head: ResponseHead;
  /** The head in the format of HTTP/1.1. */
  bytes: Uint8Array;
  framing: BodyFraming;
  body: ReadableStream<Uint8Array> | null;
}

/** `onRequest` gave a response. */
export class Refusal extends HandshakeError {
  /** The response. */
  readonly answer: Answer;

  /**
   * @param response the value that `onRequest` returned
   * @param request the request that it answers
   * @throws {TypeError} If the value is not a Response, or cannot be sent.
   */
  constructor(response: Response, request: RequestHead) {
    const answer = answerOf(checkResponse(response), request);
    super(`onRequest answered with status ${response.status}`, "rejected", {
      status: response.status,
    });
    this.answer = answer;
  }
}

/** Checks the value that `onRequest` returned. A Response of another realm or package is accepted. */
function checkResponse(response: unknown): Response {
  const isResponse = Object.prototype.toString.call(response) === "[object Response]";
  if (!isResponse && !(response instanceof Response)) {
    throw new TypeError(
      `onRequest must return a Response or undefined, received ${kindOf(response)}`,
    );
  }
  const { status, body, bodyUsed } = response as Response;
  // Response.error() has status 0, and the response of Deno.upgradeWebSocket() has 101.
  if (!(status >= 200)) {
    throw new TypeError(
      `onRequest must return a Response with a status from 200 to 599, received ${status}`,
    );
  }
  if (bodyUsed || body?.locked) {
    throw new TypeError(
      "onRequest must return a new Response for each request: the body of this one is in use",
    );
  }
  return response as Response;
}

/** Cuts a client that takes longer than `closeTimeout` for what it is waited for. */
class Patience {
  readonly #timeout: number;
  readonly #cut: () => void;
  #cancel: (() => void) | undefined;
  #last = false;

  constructor(timeout: number, cut: () => void) {
    this.#timeout = timeout;
    this.#cut = cut;
  }

  begin(): void {
    if (this.#timeout > 0) this.#cancel ??= deadline(this.#cut, this.#timeout);
  }

  /** What was waited for has come, unless it was for the end. */
  end(): void {
    if (this.#last) return;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** From now on the end is waited for, whatever else comes. */
  beginLast(): void {
    this.#last = true;
    this.begin();
  }

  stop(): void {
    this.#last = false;
    this.end();
  }
}

/**
 * Answers with the status of the error, or not at all, and waits until the transport is gone.
 *
 * @param request the request, if at least its method is known
 */
export async function refuse(
  reader: TransportReader,
  error: unknown,
  request: Asked | undefined,
  options: Cancellable<Pick<ConnectionOptions, "closeTimeout">> & Listeners,
  responder?: Responder,
): Promise<void> {
  const { transport } = reader;
  const { closeTimeout = 10_000, signal } = options;
  const patience = new Patience(closeTimeout, () => transport.destroy());
  // A body may take as long as it likes, but not when the server wants to go or the client has left.
  const hurry = () => patience.beginLast();
  const stopWatching = onAbort(signal, hurry);
  const gone = reader.dropInput(hurry);
  try {
    if (error instanceof HandshakeError && error.status !== undefined) {
      const answer = error instanceof Refusal
        ? error.answer
        : answerOf(refusalResponse(error, responder), request);
      await respond(reader, answer, request?.method === "HEAD", patience, responder);
      transport.end();
    } else {
      transport.destroy();
    }
  } catch (fault) {
    // The body failed: a client that counts its bytes or chunks does not take it for whole.
    if (error instanceof Refusal && !reader.isGone) report(fault, options);
    transport.destroy();
  }
  patience.beginLast();
  await gone;
  patience.stop();
  stopWatching();
}

function refusalResponse(error: HandshakeError, responder?: Responder): Response {
  // What a hook has thrown is not the client's business.
  const text = error.code === "hook-failed" ? "Internal Server Error" : error.message;
  const body = new TextEncoder().encode(`${text}\n`);
  const headers: [string, string][] = [
    ...(responder?.refusalHeaders(error) ?? refusalHeaders(error.status!)),
    ["Content-Type", "text/plain; charset=utf-8"],
    ["Content-Length", String(body.length)],
  ];
  return new Response(body, { status: error.status, headers });
}

async function respond(
  reader: TransportReader,
  { head, bytes, framing, body }: Answer,
  isHead: boolean,
  patience: Patience,
  responder?: Responder,
): Promise<void> {
  const write = async (bytes: Uint8Array) => {
    patience.begin();
    await reader.write(bytes);
    patience.end();
  };
  if (responder === undefined) await write(bytes);
  else responder.respond(head);
  if (body === null) return;
  // RFC 9110 §9.3.2: the response to HEAD has no body.
  if (isHead) return void handled(body.cancel());
  await sendBody(reader, body, new BodyWriter(framing), write);
}

/**
 * Prepares a response for sending.
 *
 * @throws {TypeError} If its head cannot be sent, or announces a body that is missing.
 */
function answerOf(response: Response, request: Asked | undefined): Answer {
  const { status, statusText, body } = response;
  const head = { version: "1.1", status, statusText, headers: fieldsOf(response, request) };
  const bytes = serializeResponseHead(head);
  const framing = framingOf(head);
  const missing = body === null && typeof framing === "object" && framing.length > 0;
  if (missing && request?.method !== "HEAD") {
    throw new TypeError(
      `onRequest must return a Response with the body that its Content-Length announces`,
    );
  }
  return { head, bytes, framing, body };
}

/** How the client knows where the body ends (RFC 9112 §6.3). */
function framingOf(head: ResponseHead): BodyFraming {
  try {
    return bodyFraming(head);
  } catch (error) {
    throw new TypeError((error as Error).message);
  }
}

function fieldsOf(
  { status, headers, body }: Response,
  request: Asked | undefined,
): [string, string][] {
  const fields = [...headers].filter(([name]) =>
    name !== "connection" && name !== "transfer-encoding" &&
    // RFC 9110 §8.6: a 204 response has no Content-Length.
    !(name === "content-length" && status === 204)
  );
  const version = request?.version;
  if (!headers.has("content-length")) {
    if (body === null && status !== 204) fields.push(["content-length", "0"]);
    // A client of HTTP/1.0 reads until the connection ends, and HTTP/2 has its own framing.
    const chunked = body !== null && version !== "1.0" && version !== "2.0";
    if (chunked) fields.push(["transfer-encoding", "chunked"]);
  }
  fields.push(["connection", headers.has("upgrade") ? "Upgrade, close" : "close"]);
  return fields;
}

async function sendBody(
  reader: TransportReader,
  body: ReadableStream<Uint8Array>,
  writer: BodyWriter,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const source = body.getReader();
  // A body that never ends, or gives nothing for long, must not outlive the client.
  handled(reader.closed().then(() => source.cancel()));
  try {
    for (;;) {
      const { done, value = new Uint8Array(0) } = await source.read();
      if (reader.isGone) return;
      if (!(value instanceof Uint8Array)) {
        throw new TypeError(`The body of a Response must give bytes, received ${kindOf(value)}`);
      }
      const bytes = writer.write(value, done);
      if (bytes.length > 0) await write(bytes);
      if (done) return;
    }
  } catch (error) {
    handled(source.cancel(error));
    throw error;
  }
}
