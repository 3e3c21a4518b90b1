/**
 * One end of a connection, from the opening handshake to the end, over HTTP/1.1 and HTTP/2.
 *
 * @module
 */
import { type BodyReader, bodyReader, BodyWriter } from "./body.ts";
import { ClientHandshake } from "./client_handshake.ts";
import { HandshakeError, LocalProtocolError, RemoteProtocolError } from "./error.ts";
import type {
  ExtensionChoice,
  HandshakeEvent,
  OutgoingAccept,
  OutgoingEvent,
  OutgoingHandshakeEvent,
  OutgoingReject,
  OutgoingRejectData,
  OutgoingRequest,
  ProtocolEvent,
} from "./event.ts";
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

/** The state of an {@linkcode Endpoint}. */
export type EndpointState =
  /** The opening handshake is in progress. */
  | "connecting"
  /** The server has refused, and the body of its response is not complete. */
  | "rejecting"
  /** The connection is open or closing. */
  | ProtocolState;

/** An event that an {@linkcode Endpoint} receives. */
export type EndpointEvent = HandshakeEvent | ProtocolEvent;

/** An event that an {@linkcode Endpoint} sends. Fields that have a default may be omitted. */
export type OutgoingEndpointEvent = OutgoingHandshakeEvent | OutgoingEvent;

/** Options of an {@linkcode Endpoint}. */
export interface EndpointOptions extends Omit<ProtocolOptions, "extensions"> {
  /**
   * The supported extensions, in order of preference.
   * @default {[]}
   */
  extensions?: readonly ExtensionFactory[];
  /** Limits for the head that the peer sends. */
  limits?: HeadLimits;
  /**
   * On a client: whether the handshake fails if the server chooses none of the offered
   * subprotocols, as in a browser.
   * @default {false}
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
 * One end of a connection: bytes in, events out; events in, bytes out. An endpoint sends nothing on
 * its own. To answer a request, a ping or a Close, send an event; `response()` makes the answer to
 * a ping or a Close.
 *
 * After each `receive()`, take all `events()`. To keep backpressure, process the events before you
 * receive more, and write the bytes that `send()` returns before you send more.
 *
 * Over an HTTP/2 stream (RFC 8441), heads are header fields instead of bytes. `takeFields()` adds
 * the peer's fields, and `fields` has those of this end after `send()`.
 *
 * @example
 * ```ts
 * import { Endpoint } from "sluice/core";
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
  /** The role of this end. */
  readonly role: Role;
  readonly #supported: readonly ExtensionFactory[];
  readonly #options: Pick<EndpointOptions, "limits" | "requireProtocol">;
  readonly #protocolOptions: ProtocolOptions;
  #client: ClientHandshake | undefined;
  readonly #server: ServerHandshake | undefined;
  #state: "connecting" | "rejecting" | "closed" = "connecting";
  /** Input that has not been read. Null is the end of the input. */
  #input: (Uint8Array | null)[] = [];
  #inputBegun = false;
  #inputEnded = false;
  /** Whether the request was returned as an event, or never will be. */
  #asked = false;
  #response: ResponseHead | undefined;
  #agreement: Agreement | undefined;
  #incoming: BodyReader | undefined;
  #outgoing: BodyWriter | undefined;
  /** The peer's error in the opening handshake, until it is answered. */
  #failure: RemoteProtocolError | undefined;
  #protocol: Protocol | undefined;

  /**
   * Makes one end of a connection.
   * @param role The role of this end.
   * @param options The extensions and limits.
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

  /** The state of the connection. */
  get state(): EndpointState {
    return this.#protocol?.state ?? this.#state;
  }

  /** The head of the request, or undefined until it has been sent or received. */
  get request(): RequestHead | undefined {
    return this.#client?.request ?? this.#server?.request;
  }

  /** The head of the response, or undefined until it has been sent or received. */
  get response(): ResponseHead | undefined {
    return this.#response;
  }

  /** On a server: what the client offers, or undefined until its request has been checked. */
  get offer(): ReceivedOffer | undefined {
    return this.#server?.offer;
  }

  /** What both ends agreed on, or undefined until the connection is open. */
  get agreement(): Agreement | undefined {
    return this.#agreement;
  }

  /** The header fields of the head that was sent over HTTP/2. */
  get fields(): RawHeaders | undefined {
    if (this.#client !== undefined) return this.#client.fields;
    return this.#response && http2ResponseFields(this.#response);
  }

  /** On a server: whether the request is a HEAD. Then no body is sent (RFC 9110 §9.3.2). */
  get isHead(): boolean {
    return this.#server !== undefined && this.#server.isHead;
  }

  /**
   * The protocol after the opening handshake, for example to write batches.
   * @throws {LocalProtocolError} If the connection is not open yet.
   */
  get protocol(): Protocol {
    if (this.#protocol !== undefined) return this.#protocol;
    throw new LocalProtocolError(`Expected an open connection, it is ${this.state}`);
  }

  /**
   * Whether this end should end the transport after all bytes have been written. A server does so
   * after both Close frames and after a refusal (RFC 6455 §7.1.1), a client after a failed
   * handshake.
   */
  get endsTransport(): boolean {
    return this.#protocol?.endsTransport ?? this.#state === "closed";
  }

  /** Number of received bytes that have not been read as events. */
  get bufferedAmount(): number {
    return this.#protocol?.bufferedAmount ??
      this.#input.reduce((sum, chunk) => sum + (chunk?.length ?? 0), 0);
  }

  /** Whether an extension is busy on another thread. `next()` returns undefined meanwhile. */
  get pending(): boolean {
    return this.#protocol?.pending ?? false;
  }

  /** Frees the resources of the extensions. Pending callbacks are not called. */
  dispose(): void {
    this.#protocol?.dispose();
  }

  /**
   * On a server: takes a request that another HTTP parser has read. `next()` then returns its
   * event.
   * @param head The head, with all header fields in their order.
   * @param trailing The bytes after the head.
   * @throws {LocalProtocolError} If this end is a client, or has received other input.
   */
  takeHead(head: RequestHead, trailing: Uint8Array = EMPTY): void {
    this.#untouched().takeHead(head, trailing);
  }

  /**
   * Takes the header fields of the peer's head over HTTP/2. `next()` then returns its event.
   * `receive()` takes the data of the stream.
   * @throws {LocalProtocolError} If this end is a client that has not sent its request, or has
   * received other input.
   * @throws {HandshakeError} If a pseudo-header field occurs twice ("malformed-header").
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
   * Adds the next bytes from the transport, or null at its end. Bytes after the handshake are kept.
   * Bytes after the end of the connection are dropped.
   * @throws {LocalProtocolError} If the input has ended, the connection is closed, or this end is a
   * client that has not sent its request.
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
    // A server that refuses ignores what the client sends.
    const refuses = this.#server !== undefined &&
      (this.#state !== "connecting" || this.#failure !== undefined);
    if (!refuses) this.#input.push(bytes);
  }

  /**
   * Returns the next event, or undefined if there is none yet.
   * @throws {RemoteProtocolError} If the peer violated the protocol. Later calls throw it again
   * until a refusal is sent. `event` is the event to answer with. If the opening handshake failed,
   * `cause` is the HandshakeError.
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

  /** Returns the available events. */
  *events(): IterableIterator<EndpointEvent> {
    for (let event = this.next(); event !== undefined; event = this.next()) yield event;
  }

  /** Reads the request. The input after it stays unread until the request is answered. */
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

  /** Reads the peer's head, unless another parser has. Later bytes stay in the input. */
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
      // A chunk may contain only a part of the framing.
      if (data.length > 0 || body.finished) {
        return { type: "rejectData", data, bodyFinished: body.finished };
      }
    }
    throw body.failure;
  }

  /**
   * Returns the bytes that send an event. If the call throws, nothing has changed.
   * @throws {LocalProtocolError} If the state does not allow the event, a subprotocol was not
   * offered, an extension is not supported, or the body is longer or shorter than announced.
   * @throws {RangeError} If a control frame cannot hold the payload, close code or reason, or the
   * status is not one of a refusal.
   * @throws {TypeError} If data has the wrong type, or a header field is one that the handshake
   * writes itself, contradicts another field, or contains characters that are not allowed.
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

  #chosen({ extensions }: ExtensionChoice): readonly ExtensionFactory[] {
    const supported = this.#supported;
    if (extensions === undefined) return supported;
    for (const { name } of extensions) {
      if (supported.some((one) => one.name === name)) continue;
      throw new LocalProtocolError(`Expected extensions that are supported, received ${name}`);
    }
    return supported.filter(({ name }) => extensions.some((one) => one.name === name));
  }

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
    // A client cannot answer a wrong response. It can only end the transport.
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
