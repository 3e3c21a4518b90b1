/**
 * The server's half of an `Endpoint` before it is open: `ServerHandshake` as events, and the sending of
 * a refusal.
 *
 * A file of its own because an `Endpoint` has one of two such halves, and knows neither.
 *
 * @module
 */
import { BodyWriter } from "./body.ts";
import { HandshakeError, LocalProtocolError } from "./error.ts";
import { acceptExtensions } from "./extension.ts";
import { extraFields } from "./handshake.ts";
import type {
  HandshakeEvent,
  OutgoingAccept,
  OutgoingHandshakeEvent,
  OutgoingReject,
  OutgoingRejectData,
} from "./handshake_event.ts";
import { headerValue, headerValues } from "./header.ts";
import {
  type BodyFraming,
  bodyFraming,
  type RequestHead,
  type ResponseHead,
  serializeResponseHead,
} from "./http1.ts";
import {
  chosenOf,
  type Established,
  type Input,
  misplaced,
  type Opening,
  type OpeningOptions,
} from "./opening.ts";
import { type HandshakeRequest, ServerHandshake } from "./server_handshake.ts";

/** The server's half. */
export class ServerOpening implements Opening {
  readonly #options: OpeningOptions;
  readonly #input: Input;
  readonly #handshake: ServerHandshake;
  state: Opening["state"] = "connecting";
  established: Established | undefined;
  request: RequestHead | undefined;
  response: ResponseHead | undefined;
  #given: RequestHead | undefined;
  #asked: HandshakeRequest | undefined;
  #body: BodyWriter | undefined;

  constructor(options: OpeningOptions, input: Input) {
    this.#options = options;
    this.#input = input;
    this.#handshake = new ServerHandshake(options.limits);
  }

  readonly receives = true;

  takeHead(head: RequestHead, trailing?: Uint8Array): void {
    if (this.#input.touched) {
      throw new LocalProtocolError("Expected a request before any input, received it behind some");
    }
    this.#handshake.takeHead(head, trailing);
    this.#given = head;
  }

  next(): HandshakeEvent | undefined {
    // What follows the request is for later; without an answer there is nothing more to tell.
    if (this.request !== undefined || this.state !== "connecting") return undefined;
    const head = this.#given ?? this.#read();
    return head && this.#requested(head);
  }

  #read(): RequestHead | undefined {
    for (let chunk = this.#input.take(); chunk !== undefined; chunk = this.#input.take()) {
      const head = this.#handshake.receive(chunk);
      if (head !== undefined) return head;
    }
    return undefined;
  }

  #requested(head: RequestHead): HandshakeEvent {
    this.request = head;
    this.#input.putBack(this.#handshake.trailing);
    const { protocols, extensions } = this.#asked = this.#handshake.check();
    return {
      type: "request",
      host: headerValue(head.headers, "Host")!,
      target: head.target,
      protocols,
      extensions,
      headers: extraFields(head.headers),
    };
  }

  send(event: OutgoingHandshakeEvent): Uint8Array {
    switch (event.type) {
      case "accept":
        if (this.state === "connecting" && this.#asked) return this.#accept(event, this.#asked);
        throw misplaced(event.type, "a request that was received and not answered");
      case "reject":
        if (this.state === "connecting") return this.#reject(event);
        throw misplaced(event.type, "a request that was not answered");
      case "rejectData":
        if (this.state === "rejecting") return this.#rejectData(event);
        throw misplaced(event.type, "a refusal whose body is not finished");
      default:
        throw misplaced(event.type, "an answer to a request");
    }
  }

  #accept(event: OutgoingAccept, asked: HandshakeRequest): Uint8Array {
    const { protocol, headers } = event;
    const supported = chosenOf(event, this.#options.extensions);
    const agreed = acceptExtensions(asked.extensions, supported);
    const { extensions } = agreed;
    try {
      const answer = { protocol, extensions: agreed.headers, headers };
      const { response, bytes } = this.#handshake.accept(answer);
      this.response = response;
      this.established = { extensions };
      return bytes;
    } catch (error) {
      for (const extension of extensions) extension.close();
      throw error;
    }
  }

  #reject(event: OutgoingReject): Uint8Array {
    const { response, framing } = refusal(event, this.request?.version);
    const bytes = serializeResponseHead(response);
    this.response = response;
    this.state = event.hasBody ? "rejecting" : "closed";
    this.#body = new BodyWriter(framing);
    this.#input.clear();
    return bytes;
  }

  #rejectData({ data, bodyFinished = true }: OutgoingRejectData): Uint8Array {
    if (!(data instanceof Uint8Array)) {
      throw new TypeError(`Expected data to be a Uint8Array, received ${typeof data}`);
    }
    const bytes = this.#body!.write(data, bodyFinished);
    if (bodyFinished) this.state = "closed";
    return bytes;
  }
}

/** The head of a refusal, and how its body is framed. */
function refusal(
  { status = 400, statusText = "", headers = [], hasBody = false }: OutgoingReject,
  version: string | undefined,
): { response: ResponseHead; framing: BodyFraming } {
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    throw new RangeError(`Expected a status from 200 to 599, received ${status}`);
  }
  const given = (name: string) => headerValues(headers, name).length > 0;
  const fields = [...headers];
  if (!given("Content-Length") && !given("Transfer-Encoding")) {
    // RFC 9110 §8.6: Content-Length stands beside neither of these.
    if (!hasBody && status !== 204 && status !== 304) fields.push(["Content-Length", "0"]);
    // RFC 9112 §6.1: a client of HTTP/1.0 does not know the chunked coding.
    if (hasBody && version !== "1.0") fields.push(["Transfer-Encoding", "chunked"]);
  }
  // RFC 9110 §7.8: Upgrade is named there too.
  if (!given("Connection")) {
    fields.push(["Connection", given("Upgrade") ? "Upgrade, close" : "close"]);
  }
  const response = { version: "1.1", status, statusText, headers: fields };
  return { response, framing: framingOf(response, hasBody) };
}

/**
 * What a client will take for the framing of the body.
 *
 * @throws {TypeError} where that is another one than the caller has in mind
 */
function framingOf(response: ResponseHead, hasBody: boolean): BodyFraming {
  const { status, headers } = response;
  const coding = headerValues(headers, "Transfer-Encoding").join(", ").toLowerCase();
  const lengths = headerValues(headers, "Content-Length");
  if ((coding !== "" && coding !== "chunked") || (coding !== "" && lengths.length > 0)) {
    throw new TypeError(
      `Expected Content-Length or Transfer-Encoding: chunked, received ${
        lengths.length > 0 ? "both" : coding
      }`,
    );
  }
  let framing: BodyFraming;
  try {
    framing = bodyFraming(response);
  } catch (error) {
    throw error instanceof HandshakeError ? new TypeError(error.message) : error;
  }
  if (hasBody && (status === 204 || status === 304)) {
    throw new TypeError(`Expected no body beside status ${status}, received one to send`);
  }
  const announced = coding !== "" || lengths.some((length) => Number(length) > 0);
  if (!hasBody && announced) {
    throw new TypeError("Expected no header field that announces a body without one to send");
  }
  return framing;
}
