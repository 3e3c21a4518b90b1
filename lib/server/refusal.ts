/**
 * Refusing a handshake, or answering plain HTTP: a response whose end is the end of the connection.
 *
 * A file of its own because it is HTTP, and the rest of the server is not.
 *
 * @module
 */
import { chunkOf, LAST_CHUNK } from "../core/body.ts";
import { HandshakeError } from "../core/error.ts";
import { type RequestHead, type ResponseHead, serializeResponseHead } from "../core/http1.ts";
import { refusalHeaders } from "../core/server_handshake.ts";
import type { Cancellable, TransportReader } from "../opening.ts";
import type { ConnectionOptions } from "../options.ts";
import { handled } from "../connection/outbox.ts";
import { backgroundTimer } from "../connection/turn.ts";

/** How a response leaves over HTTP/2, which has frames of its own for it. */
export interface Responder {
  /** Sends the head. */
  respond(head: ResponseHead): void;
  /** The header fields that belong to the refusal with this error. */
  refusalHeaders(error: HandshakeError): [string, string][];
}

/** `onRequest` gave a response. */
export class Refusal extends HandshakeError {
  /** The response. */
  readonly answer: Response;
  /** What it answers. */
  readonly request: RequestHead;

  constructor(answer: Response, request: RequestHead) {
    super(`onRequest answered with status ${answer.status}`, "rejected", { status: answer.status });
    this.answer = answer;
    this.request = request;
  }
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
    if (this.#timeout > 0) this.#cancel ??= backgroundTimer(this.#cut, this.#timeout);
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

/** Answers with the status of the error, or not at all, and waits until the transport is gone. */
export async function refuse(
  reader: TransportReader,
  error: unknown,
  { closeTimeout = 10_000, signal }: Cancellable<Pick<ConnectionOptions, "closeTimeout">>,
  responder?: Responder,
): Promise<void> {
  const { transport } = reader;
  const patience = new Patience(closeTimeout, () => transport.destroy());
  // A body may take as long as it likes, but not when the server wants to go or the client has left.
  const hurry = () => patience.beginLast();
  signal?.addEventListener("abort", hurry, { once: true });
  if (signal?.aborted) hurry();
  const gone = reader.dropInput(hurry);
  try {
    if (error instanceof HandshakeError && error.status !== undefined) {
      await respond(reader, error, patience, responder);
      transport.end();
    } else {
      transport.destroy();
    }
  } catch {
    // The body failed: a client that counts its bytes or chunks does not take it for whole.
    transport.destroy();
  }
  patience.beginLast();
  await gone;
  patience.stop();
  signal?.removeEventListener("abort", hurry);
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
  error: HandshakeError,
  patience: Patience,
  responder?: Responder,
): Promise<void> {
  const { answer, request } = error instanceof Refusal
    ? error
    : { answer: refusalResponse(error, responder), request: undefined };
  const { status, statusText, body } = answer;
  const framing = framingOf(answer, responder === undefined ? request?.version : "2.0");
  const headers = fieldsOf(answer, framing);
  const head = { version: "1.1", status, statusText, headers };
  const write = async (bytes: Uint8Array) => {
    patience.begin();
    await reader.write(bytes);
    patience.end();
  };
  if (responder === undefined) await write(serializeResponseHead(head));
  else responder.respond(head);
  if (body === null) return;
  // RFC 9110 §9.3.2: the answer to HEAD has no body.
  if (request?.method === "HEAD") return void handled(body.cancel());
  await sendBody(reader, body, framing === "chunked" ? (bytes) => write(chunkOf(bytes)) : write);
  if (framing === "chunked") await write(LAST_CHUNK);
}

/** How the client knows where the body ends (RFC 9112 §6.3). */
type Framing = "none" | "length" | "chunked" | "until-close";

function framingOf({ body, headers }: Response, version: string | undefined): Framing {
  if (headers.has("content-length")) return "length";
  if (body === null) return "none";
  return version === "1.0" || version === "2.0" ? "until-close" : "chunked";
}

function fieldsOf({ status, headers }: Response, framing: Framing): [string, string][] {
  const fields = [...headers].filter(([name]) =>
    name !== "connection" && name !== "transfer-encoding"
  );
  // RFC 9110 §8.6: not beside 204.
  if (framing === "none" && status !== 204) fields.push(["content-length", "0"]);
  if (framing === "chunked") fields.push(["transfer-encoding", "chunked"]);
  fields.push(["connection", headers.has("upgrade") ? "Upgrade, close" : "close"]);
  return fields;
}

async function sendBody(
  reader: TransportReader,
  body: ReadableStream<Uint8Array>,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const source = body.getReader();
  // A body that never ends, or gives nothing for long, must not outlive the client.
  handled(reader.closed().then(() => source.cancel()));
  for (;;) {
    const { done, value } = await source.read();
    if (done) return;
    // A chunk of no bytes would be the last one.
    if (value.length > 0) await write(value);
  }
}
