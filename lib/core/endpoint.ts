/**
 * One end of a connection from its first byte to its last, without I/O. `connect()`, `serve()`, `accept()`
 * and `upgrade()` run on it, over HTTP/1.1 and HTTP/2.
 *
 * @module
 */
import { type BodyReader, bodyReader, BodyWriter } from "./body.ts";
import { ClientHandshake } from "./client_handshake.ts";
import { HandshakeError, LocalProtocolError, RemoteProtocolError } from "./error.ts";
import type { OutgoingEvent, ProtocolEvent } from "./event.ts";
import {
  acceptExtensions,
  type Extension,
  type ExtensionFactory,
  finalizeExtensions,
  offerExtensions,
} from "./extension.ts";
import { checkRole, type Role } from "./frame.ts";
import {
  accepts,
  type Agreement,
  extraFields,
  http2ResponseFields,
  type ReceivedOffer,
  refusalHeaders,
} from "./handshake.ts";
import type {
  ExtensionChoice,
  HandshakeEvent,
  OutgoingAccept,
  OutgoingHandshakeEvent,
  OutgoingReject,
  OutgoingRejectData,
  OutgoingRequest,
} from "./handshake_event.ts";
import { headerValue, type RawHeaders } from "./header.ts";
import type { HeadLimits, RequestHead, ResponseHead } from "./http1.ts";
import { checkKnown, type OptionNames } from "./options.ts";
import {
  Protocol,
  PROTOCOL_OPTIONS,
  type ProtocolOptions,
  type ProtocolState,
} from "./protocol.ts";
import { ServerHandshake } from "./server_handshake.ts";

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

const EMPTY = new Uint8Array(0);

/**
 * Bytes in, events out; events in, bytes out: the opening handshake, the messages and the closing
 * handshake of one end. Nothing is answered by itself: what a request, a ping or a Close asks for is an
 * event to send; `response()` makes the last two.
 *
 * After each `receive()` take all `events()`. Do not receive faster than they are dealt with, and write
 * what `send()` gives before more is sent: then backpressure is the transport's.
 *
 * Over a stream of HTTP/2 (RFC 8441) heads are no bytes: `takeFields()` takes the peer's, and `fields` has
 * those of this end after `send()`.
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
  readonly #supported: readonly ExtensionFactory[];
  readonly #options: Pick<EndpointOptions, "limits" | "requireProtocol">;
  readonly #protocolOptions: ProtocolOptions;
  /** A client's, once the request was sent. */
  #client: ClientHandshake | undefined;
  readonly #server: ServerHandshake | undefined;
  #state: "connecting" | "rejecting" | "closed" = "connecting";
  /** The input that was not read yet; null is its end. */
  #input: (Uint8Array | null)[] = [];
  #inputBegun = false;
  #inputEnded = false;
  /** Whether the request was given out as an event, or will never be. */
  #asked = false;
  #response: ResponseHead | undefined;
  #agreement: Agreement | undefined;
  /** The body of a refusal that comes. */
  #incoming: BodyReader | undefined;
  /** The body of a refusal that is sent. */
  #outgoing: BodyWriter | undefined;
  /** What the peer did wrong in the opening handshake, until it is answered. */
  #failure: RemoteProtocolError | undefined;
  #protocol: Protocol | undefined;

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
    this.#supported = extensions;
    this.#options = { limits, requireProtocol };
    this.#protocolOptions = others;
    if (role === "server") this.#server = new ServerHandshake(limits);
  }

  /** Where the connection stands. */
  get state(): EndpointState {
    return this.#protocol?.state ?? this.#state;
  }

  /** The head of the request, once it was sent or received. */
  get request(): RequestHead | undefined {
    return this.#client?.request ?? this.#server?.request;
  }

  /** The head of the response, once it was sent or received. */
  get response(): ResponseHead | undefined {
    return this.#response;
  }

  /** On a server: what the client offers, once its request was checked. */
  get offer(): ReceivedOffer | undefined {
    return this.#server?.offer;
  }

  /** What both ends agreed on, once the connection is open. */
  get agreement(): Agreement | undefined {
    return this.#agreement;
  }

  /** The header fields of the head that was sent over HTTP/2. */
  get fields(): RawHeaders | undefined {
    if (this.#client !== undefined) return this.#client.fields;
    return this.#response && http2ResponseFields(this.#response);
  }

  /** On a server: whether the request is a HEAD, so that no body is sent (RFC 9110 §9.3.2). */
  get isHead(): boolean {
    return this.#server !== undefined && this.#server.isHead;
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
    return this.#protocol?.endsTransport ?? this.#state === "closed";
  }

  /** How many received bytes were not read as events yet. */
  get bufferedAmount(): number {
    return this.#protocol?.bufferedAmount ??
      this.#input.reduce((sum, chunk) => sum + (chunk?.length ?? 0), 0);
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
   * On a server: takes a request that another HTTP parser has read, instead of receiving it. `next()`
   * then gives its event.
   *
   * @param head the head; its header fields as they came, repeated ones kept
   * @param trailing what came behind the head. Default: nothing
   * @throws {LocalProtocolError} on a client, or after other input
   */
  takeHead(head: RequestHead, trailing: Uint8Array = EMPTY): void {
    this.#untouched().takeHead(head, trailing);
  }

  /**
   * Takes the header fields of the peer's head over HTTP/2, instead of receiving it. `next()` then gives
   * its event. `receive()` takes the data of the stream.
   *
   * @throws {LocalProtocolError} on a client before its request was sent, or after other input
   * @throws {HandshakeError} "malformed-header"
   */
  takeFields(fields: RawHeaders): void {
    const handshake = this.role === "client" ? this.#client : this.#untouched();
    if (handshake === undefined) throw new LocalProtocolError("Expected a request to be sent");
    handshake.takeFields(fields);
  }

  #untouched(): ServerHandshake {
    if (this.#server === undefined) {
      throw new LocalProtocolError("Expected the role server to take a request");
    }
    if (!this.#inputBegun) return this.#server;
    throw new LocalProtocolError("Expected a request before any input, received it behind some");
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
    if (this.#inputEnded) throw new LocalProtocolError("Expected no more input after its end");
    if (this.role === "client" && this.#client === undefined) {
      throw new LocalProtocolError("Expected a request to be sent before input");
    }
    if (this.#state === "closed" && bytes !== null) {
      throw new LocalProtocolError("Expected no more input on a closed connection");
    }
    this.#inputBegun = true;
    this.#inputEnded = bytes === null;
    // A server that refuses is no longer interested in what the client sends.
    const refuses = this.#server !== undefined &&
      (this.#state !== "connecting" || this.#failure !== undefined);
    if (!refuses) this.#input.push(bytes);
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
    if (this.#state === "closed") return undefined;
    try {
      if (this.#server !== undefined) return this.#nextRequest(this.#server);
      if (this.#incoming !== undefined) return this.#nextData(this.#incoming);
      return this.#client && this.#nextResponse(this.#client);
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /** Reads the events that are at hand. */
  *events(): IterableIterator<EndpointEvent> {
    for (let event = this.next(); event !== undefined; event = this.next()) yield event;
  }

  /** What follows the request is for later; without an answer there is nothing more to tell. */
  #nextRequest(handshake: ServerHandshake): HandshakeEvent | undefined {
    if (this.#asked) return undefined;
    const head = this.#readHead(handshake, handshake.request);
    if (head === undefined) return undefined;
    this.#asked = true;
    const { protocols, extensions } = handshake.check();
    const host = headerValue(head.headers, "Host")!;
    const headers = extraFields(head.headers);
    return { type: "request", host, target: head.target, protocols, extensions, headers };
  }

  #nextResponse(handshake: ClientHandshake): HandshakeEvent | undefined {
    const response = this.#response = this.#readHead(handshake, handshake.response);
    if (response === undefined) return undefined;
    if (!accepts(response)) return this.#rejected(response);
    const { protocol, extensions } = this.#agreement = handshake.check();
    this.#begin(finalizeExtensions(extensions, this.#supported));
    return { type: "accept", protocol, extensions, headers: extraFields(response.headers) };
  }

  /** Reads the peer's head, unless another parser has read it. What follows stays in the input. */
  #readHead<T>(
    handshake: { receive(chunk: Uint8Array | null): T | undefined; readonly trailing: Uint8Array },
    given: T | undefined,
  ): T | undefined {
    let head = given;
    let at = 0;
    while (head === undefined && at < this.#input.length) {
      head = handshake.receive(this.#input[at++]);
    }
    const rest = this.#input.slice(at);
    this.#input = head === undefined || handshake.trailing.length === 0
      ? rest
      : [handshake.trailing, ...rest];
    return head;
  }

  #rejected(response: ResponseHead): HandshakeEvent {
    const { status, statusText, headers } = response;
    const body = this.#incoming = bodyReader(response);
    const hasBody = !body.finished;
    this.#state = hasBody ? "rejecting" : "closed";
    return { type: "reject", status, statusText, headers, hasBody };
  }

  #nextData(body: BodyReader): HandshakeEvent | undefined {
    while (body.failure === undefined) {
      const chunk = this.#input.shift();
      if (chunk === undefined) return undefined;
      if (chunk === null) body.end();
      const data = body.push(chunk ?? EMPTY);
      if (body.finished) this.#state = "closed";
      // Many a chunk holds nothing but a part of the framing.
      if (data.length > 0 || body.finished) {
        return { type: "rejectData", data, bodyFinished: body.finished };
      }
    }
    throw body.failure;
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
    const opens = isHandshakeEvent(event);
    if (this.#protocol !== undefined ? opens : !opens || this.#state === "closed") {
      throw new LocalProtocolError(
        `Expected an event that may be sent in state ${this.state}, received the event ${event.type}`,
      );
    }
    if (!opens) return this.protocol.send(event);
    if (event.type === "request") return this.#sendRequest(event);
    if (this.#server === undefined) throw misplaced(event, "a request, or a response to wait for");
    const isConnecting = this.#state === "connecting";
    switch (event.type) {
      case "accept":
        if (isConnecting && this.#server.offer) return this.#accept(event, this.#server);
        throw misplaced(event, "a request that was received and not answered");
      case "reject":
        if (isConnecting) return this.#reject(event, this.#server);
        throw misplaced(event, "a request that was not answered");
      default:
        if (this.#state === "rejecting") return this.#rejectData(event, this.#outgoing!);
        throw misplaced(event, "a refusal whose body is not finished");
    }
  }

  #sendRequest(event: OutgoingRequest): Uint8Array {
    if (this.role === "server") throw misplaced(event, "an answer to a request");
    if (this.#client !== undefined) throw misplaced(event, "a response to wait for");
    const { host, target, protocols, headers, scheme } = event;
    const extensions = offerExtensions(this.#chosen(event));
    const handshake = new ClientHandshake({
      ...this.#options,
      ...{ host, target, protocols, extensions, headers, scheme },
    });
    const bytes = handshake.send();
    this.#client = handshake;
    return bytes;
  }

  #accept(event: OutgoingAccept, handshake: ServerHandshake): Uint8Array {
    const { protocol = "", headers } = event;
    const agreed = acceptExtensions(handshake.offer!.extensions, this.#chosen(event));
    try {
      const answer = { protocol, extensions: agreed.headers, headers };
      const { response, bytes } = handshake.accept(answer);
      this.#response = response;
      this.#agreement = { protocol, extensions: agreed.headers };
      this.#begin(agreed.extensions);
      return bytes;
    } catch (error) {
      for (const extension of agreed.extensions) extension.close();
      throw error;
    }
  }

  #reject(event: OutgoingReject, handshake: ServerHandshake): Uint8Array {
    const { response, bytes, framing } = handshake.reject(event);
    this.#response = response;
    this.#state = event.hasBody ? "rejecting" : "closed";
    this.#outgoing = new BodyWriter(framing);
    this.#failure = undefined;
    this.#input = [];
    return bytes;
  }

  #rejectData({ data, bodyFinished = true }: OutgoingRejectData, body: BodyWriter): Uint8Array {
    if (!(data instanceof Uint8Array)) {
      throw new TypeError(`Expected data to be a Uint8Array, received ${typeof data}`);
    }
    const bytes = body.write(data, bodyFinished);
    if (bodyFinished) this.#state = "closed";
    return bytes;
  }

  /** Those of the supported extensions that an event names. */
  #chosen({ extensions }: ExtensionChoice): readonly ExtensionFactory[] {
    const supported = this.#supported;
    if (extensions === undefined) return supported;
    for (const { name } of extensions) {
      if (supported.some((one) => one.name === name)) continue;
      throw new LocalProtocolError(`Expected extensions that are supported, received ${name}`);
    }
    return supported.filter(({ name }) => extensions.some((one) => one.name === name));
  }

  /** Goes on with what follows the handshake. */
  #begin(extensions: readonly Extension[]): void {
    const protocol = new Protocol(this.role, { ...this.#protocolOptions, extensions });
    for (const chunk of this.#input) protocol.receive(chunk);
    this.#input = [];
    this.#protocol = protocol;
  }

  #fail(error: unknown): unknown {
    if (!(error instanceof HandshakeError)) return error;
    const { message, status } = error;
    this.#input = [];
    // What a server's response does wrong can be answered by nothing but the end.
    const isAnswerable = this.#server !== undefined && status !== undefined;
    if (!isAnswerable) this.#state = "closed";
    const headers = refusalHeaders(error, this.request?.version);
    const event = isAnswerable
      ? { type: "reject" as const, status, statusText: "", headers, hasBody: false }
      : undefined;
    return this.#failure = new RemoteProtocolError(message, 1006, { cause: error, event });
  }
}

function misplaced({ type }: OutgoingHandshakeEvent, expected: string): LocalProtocolError {
  return new LocalProtocolError(`Expected ${expected}, received the event ${type}`);
}

function isHandshakeEvent(event: OutgoingEndpointEvent): event is OutgoingHandshakeEvent {
  return HANDSHAKE_EVENTS.includes(event.type);
}
