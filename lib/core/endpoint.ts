/**
 * One end of a connection from its first byte to its last, without I/O.
 *
 * A file of its own because `protocol.ts` also serves those who do the opening handshake elsewhere.
 *
 * @module
 */
import { ClientOpening } from "./client_opening.ts";
import { HandshakeError, LocalProtocolError, RemoteProtocolError } from "./error.ts";
import type { OutgoingEvent, ProtocolEvent } from "./event.ts";
import type { ExtensionFactory } from "./extension.ts";
import { checkRole, type Role } from "./frame.ts";
import type { HandshakeEvent, OutgoingHandshakeEvent } from "./handshake_event.ts";
import type { HeadLimits, RequestHead, ResponseHead } from "./http1.ts";
import { Input, type Opening } from "./opening.ts";
import { checkKnown, type OptionNames } from "./options.ts";
import {
  Protocol,
  PROTOCOL_OPTIONS,
  type ProtocolOptions,
  type ProtocolState,
} from "./protocol.ts";
import { refusalHeaders } from "./server_handshake.ts";
import { ServerOpening } from "./server_opening.ts";

/** Where a connection stands. */
export type EndpointState =
  /** The opening handshake is under way. */
  | "connecting"
  /** The server has refused, and the body of its answer is under way. */
  | "rejecting"
  /** It is open, or closing. */
  | ProtocolState;

/** What an {@linkcode Endpoint} receives; `type` tells the events apart. */
export type EndpointEvent = HandshakeEvent | ProtocolEvent;

/** What an {@linkcode Endpoint} sends: an event as received, or less where there is a default. */
export type OutgoingEndpointEvent = OutgoingHandshakeEvent | OutgoingEvent;

/** How an {@linkcode Endpoint} works. */
export interface EndpointOptions extends Omit<ProtocolOptions, "extensions"> {
  /** The extensions supported, the preferred one first. Default: none */
  extensions?: readonly ExtensionFactory[];
  /** How large the head that the peer sends may be. */
  limits?: HeadLimits;
  /**
   * On a client: whether a server that chooses none of the subprotocols offered is an error, as it is in
   * a browser. Default: false
   */
  requireProtocol?: boolean;
}

const ENDPOINT_OPTIONS: OptionNames<EndpointOptions> = {
  ...PROTOCOL_OPTIONS,
  limits: true,
  requireProtocol: true,
};

const HANDSHAKE_EVENTS: readonly string[] = ["request", "accept", "reject", "rejectData"];

/**
 * Bytes in, events out; events in, bytes out: the opening handshake, the messages and the closing
 * handshake of one end. Nothing is answered by itself: what a request, a ping or a Close asks for is an
 * event to send; `response()` makes the last two.
 *
 * After each `receive()` take all `events()`. Do not receive faster than they are dealt with, and write
 * what `send()` gives before more is sent: then backpressure is the transport's.
 *
 * @example
 * ```ts
 * import { Endpoint } from "@sluice/sluice/core";
 *
 * const client = new Endpoint("client");
 * const server = new Endpoint("server");
 *
 * server.receive(client.send({ type: "request", host: "example.com", target: "/chat" }));
 * for (const event of server.events()) {
 *   if (event.type === "request") client.receive(server.send({ type: "accept" }));
 * }
 * client.receive(server.send({ type: "text", data: "Hello" }));
 * for (const event of client.events()) {
 *   console.log(event.type === "text" ? event.data : event.type); // accept Hello
 * }
 * ```
 */
export class Endpoint {
  /** Which end this is. */
  readonly role: Role;
  readonly #protocolOptions: ProtocolOptions;
  readonly #input: Input = new Input();
  readonly #opening: Opening;
  #protocol: Protocol | undefined;
  /** What the peer did wrong in the opening handshake, until it is answered. */
  #failure: RemoteProtocolError | undefined;
  #lost = false;

  /**
   * Makes one end of a connection.
   *
   * @param role which end it is
   * @param options extensions, limits, and whether received chunks may be changed
   * @throws {TypeError} If the role or an option does not exist.
   */
  constructor(role: Role, options: EndpointOptions = {}) {
    checkRole(role);
    checkKnown("Endpoint", options, ENDPOINT_OPTIONS);
    this.role = role;
    const { extensions = [], limits, requireProtocol, ...others } = options;
    this.#protocolOptions = others;
    const opening = { extensions, limits, requireProtocol };
    this.#opening = role === "client"
      ? new ClientOpening(opening, this.#input)
      : new ServerOpening(opening, this.#input);
  }

  /** Where the connection stands. */
  get state(): EndpointState {
    return this.#protocol?.state ?? (this.#lost ? "closed" : this.#opening.state);
  }

  /** The head of the request, once it was sent or received. */
  get request(): RequestHead | undefined {
    return this.#opening.request;
  }

  /** The head of the response, once it was sent or received. */
  get response(): ResponseHead | undefined {
    return this.#opening.response;
  }

  /**
   * What this end does after the opening handshake: to write into batches, for one.
   *
   * @throws {LocalProtocolError} before the connection is open
   */
  get protocol(): Protocol {
    if (this.#protocol !== undefined) return this.#protocol;
    throw new LocalProtocolError(`Expected an open connection, it is ${this.state}`);
  }

  /**
   * Whether this end is the one to end the transport now, once all bytes were written: the server does
   * after both Close frames and after a refusal (RFC 6455 §7.1.1), a client after a failed handshake.
   */
  get endsTransport(): boolean {
    return this.#protocol?.endsTransport ?? this.state === "closed";
  }

  /** How many received bytes were not read as events yet. */
  get bufferedAmount(): number {
    return this.#protocol?.bufferedAmount ?? this.#input.size;
  }

  /** Whether an extension works elsewhere on what comes next: `next()` gives nothing meanwhile. */
  get pending(): boolean {
    return this.#protocol?.pending ?? false;
  }

  /** Frees what the extensions hold; what is pending is not called back. */
  dispose(): void {
    this.#protocol?.dispose();
  }

  /**
   * On a server: takes a request that another HTTP parser has read, in place of receiving it. `next()`
   * then gives its event.
   *
   * @param head the head; its header fields as they came, repeated ones kept
   * @param trailing what came behind the head. Default: nothing
   * @throws {LocalProtocolError} on a client, or after other input
   */
  takeHead(head: RequestHead, trailing?: Uint8Array): void {
    this.#opening.takeHead(head, trailing);
  }

  /**
   * Takes the next bytes from the transport, or null at its end. What follows the handshake in the same
   * chunk is kept; what follows the end of what this end listens to is dropped.
   *
   * @throws {LocalProtocolError} after the end, when the connection is closed, and on a client before the
   * request was sent
   */
  receive(bytes: Uint8Array | null): void {
    if (this.#protocol !== undefined) return this.#protocol.receive(bytes);
    if (this.#input.ended) throw new LocalProtocolError("Expected no more input after its end");
    if (!this.#opening.receives) {
      throw new LocalProtocolError("Expected a request to be sent before input");
    }
    const { state } = this;
    if (state === "closed" && bytes !== null) {
      throw new LocalProtocolError("Expected no more input on a closed connection");
    }
    // A server that refuses is no longer interested in what the client sends, but in its end.
    const refusing = this.role === "server" && (state !== "connecting" || this.#failure);
    if (bytes === null || !refusing) this.#input.put(bytes);
  }

  /**
   * Reads the next event, or gives undefined when there is none yet.
   *
   * @throws {RemoteProtocolError} when the peer broke the protocol, and again at every later call until a
   * refusal is sent; its `event` is the one to send, its `cause` the HandshakeError where it was in the
   * opening handshake
   */
  next(): EndpointEvent | undefined {
    if (this.#protocol !== undefined) return this.#protocol.next();
    if (this.#failure !== undefined) throw this.#failure;
    let event: HandshakeEvent | undefined;
    try {
      event = this.#opening.next();
    } catch (error) {
      throw this.#fail(error);
    }
    this.#begin();
    return event;
  }

  /** Reads the events that are at hand. */
  *events(): IterableIterator<EndpointEvent> {
    for (let event = this.next(); event !== undefined; event = this.next()) yield event;
  }

  /**
   * Gives the bytes that send the event. A call that throws has changed nothing.
   *
   * @throws {LocalProtocolError} where the state forbids it, for a subprotocol that was not offered, an
   * extension that is not supported, or a body of another length than announced
   * @throws {RangeError} for a payload, close code or reason that a control frame cannot carry, or a
   * status that is none of a refusal
   * @throws {TypeError} for data of the wrong type, and for a header field that the handshake writes by
   * itself, that contradicts the others or that would break out of its place
   */
  send(event: OutgoingEndpointEvent): Uint8Array {
    const opening = isHandshakeEvent(event);
    const { state } = this;
    if (this.#protocol !== undefined ? opening : !opening || this.#lost) {
      throw new LocalProtocolError(
        `Expected an event that may be sent in state ${state}, received the event ${event.type}`,
      );
    }
    if (!opening) return this.protocol.send(event);
    const bytes = this.#opening.send(event);
    if (event.type === "reject") this.#failure = undefined;
    this.#begin();
    return bytes;
  }

  /** Goes on with what follows the handshake, once that is through. */
  #begin(): void {
    const { established } = this.#opening;
    if (established === undefined) return;
    const { extensions } = established;
    const protocol = this.#protocol = new Protocol(this.role, {
      ...this.#protocolOptions,
      extensions,
    });
    for (let chunk = this.#input.take(); chunk !== undefined; chunk = this.#input.take()) {
      protocol.receive(chunk);
      if (chunk === null) return;
    }
  }

  #fail(error: unknown): unknown {
    if (!(error instanceof HandshakeError)) return error;
    const { message, status } = error;
    this.#input.clear();
    // What a server's response does wrong can be answered by nothing but the end.
    const refuses = this.role === "server" && status !== undefined;
    this.#lost = !refuses;
    const event = refuses
      ? {
        ...{ type: "reject" as const, status, statusText: "" },
        ...{ headers: refusalHeaders(status), hasBody: false },
      }
      : undefined;
    return this.#failure = new RemoteProtocolError(message, 1006, { cause: error, event });
  }
}

function isHandshakeEvent(event: OutgoingEndpointEvent): event is OutgoingHandshakeEvent {
  return HANDSHAKE_EVENTS.includes(event.type);
}
