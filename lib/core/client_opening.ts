/**
 * The client's half of an `Endpoint` before it is open: `ClientHandshake` as events, and the body of a
 * refusal.
 *
 * A file of its own because an `Endpoint` has one of two such halves, and knows neither.
 *
 * @module
 */
import { type BodyReader, bodyReader } from "./body.ts";
import { ClientHandshake } from "./client_handshake.ts";
import { LocalProtocolError } from "./error.ts";
import { finalizeExtensions, offerExtensions } from "./extension.ts";
import { extraFields } from "./handshake.ts";
import type { HandshakeEvent, OutgoingHandshakeEvent, RejectDataEvent } from "./handshake_event.ts";
import type { ResponseHead } from "./http1.ts";
import {
  chosenOf,
  type Established,
  type Input,
  misplaced,
  type Opening,
  type OpeningOptions,
} from "./opening.ts";

const EMPTY = new Uint8Array(0);

/** The client's half. */
export class ClientOpening implements Opening {
  readonly #options: OpeningOptions;
  readonly #input: Input;
  state: Opening["state"] = "connecting";
  established: Established | undefined;
  #handshake: ClientHandshake | undefined;
  response: ResponseHead | undefined;
  #body: BodyReader | undefined;

  constructor(options: OpeningOptions, input: Input) {
    this.#options = options;
    this.#input = input;
  }

  get request(): ClientHandshake["request"] | undefined {
    return this.#handshake?.request;
  }

  get receives(): boolean {
    return this.#handshake !== undefined;
  }

  takeHead(): never {
    throw new LocalProtocolError("Expected the role server to take a request");
  }

  send(event: OutgoingHandshakeEvent): Uint8Array {
    if (event.type !== "request" || this.#handshake !== undefined) {
      throw misplaced(
        event.type,
        this.#handshake === undefined ? "a request" : "a response to wait for",
      );
    }
    const { host, target, protocols, headers } = event;
    const extensions = offerExtensions(chosenOf(event, this.#options.extensions));
    const { limits, requireProtocol } = this.#options;
    const handshake = new ClientHandshake({
      ...{ host, target, protocols, extensions, headers },
      ...{ limits, requireProtocol },
    });
    const bytes = handshake.send();
    this.#handshake = handshake;
    return bytes;
  }

  next(): HandshakeEvent | undefined {
    if (this.state === "closed" || this.#handshake === undefined) return undefined;
    if (this.#body !== undefined) return this.#nextData(this.#body);
    for (let chunk = this.#input.take(); chunk !== undefined; chunk = this.#input.take()) {
      const head = this.#handshake.receive(chunk);
      if (head !== undefined) return this.#answered(this.#handshake, head);
    }
    return undefined;
  }

  #answered(handshake: ClientHandshake, response: ResponseHead): HandshakeEvent {
    this.response = response;
    this.#input.putBack(handshake.trailing);
    if (response.status !== 101) return this.#refused(response);
    const { protocol, extensions } = handshake.check();
    const supported = this.#options.extensions;
    this.established = { extensions: finalizeExtensions(extensions, supported) };
    return { type: "accept", protocol, extensions, headers: extraFields(response.headers) };
  }

  #refused(response: ResponseHead): HandshakeEvent {
    const { status, statusText, headers } = response;
    const body = bodyReader(response);
    const hasBody = !body.finished;
    if (hasBody) this.#body = body;
    this.state = hasBody ? "rejecting" : "closed";
    return { type: "reject", status, statusText, headers, hasBody };
  }

  #nextData(body: BodyReader): RejectDataEvent | undefined {
    while (body.failure === undefined) {
      const chunk = this.#input.take();
      if (chunk === undefined) return undefined;
      if (chunk === null) body.end();
      const data = body.push(chunk ?? EMPTY);
      if (body.finished) this.state = "closed";
      // Many a chunk holds nothing but a part of the framing.
      if (data.length > 0 || body.finished) {
        return { type: "rejectData", data, bodyFinished: body.finished };
      }
    }
    throw body.failure;
  }
}
