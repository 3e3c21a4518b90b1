/** One end of a connection, from the opening handshake to the end, over HTTP/1.1 and HTTP/2. */
import { type BodyReader, bodyReader, BodyWriter } from "./body.ts";
import { HandshakeError, LocalProtocolError, RemoteProtocolError, wrongType } from "./error.ts";
import type { EndpointEvent, OutgoingEndpointEvent, OutgoingEvent, OutgoingOf } from "./event.ts";
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
  checkHttp2Request,
  checkRequest,
  checkResponse,
  extraFields,
  type HandshakeOffer,
  http2Request,
  http2RequestHead,
  http2Response,
  http2ResponseFields,
  http2ResponseHead,
  lost,
  notOffered,
  type ReceivedOffer,
  refusalHeaders,
  refusalResponse,
  upgradeRequest,
  upgradeResponse,
} from "./handshake.ts";
import { headerValue, type RawHeaders } from "./header.ts";
import {
  HEAD_LIMITS,
  type HeadLimits,
  type HeadParser,
  HeadReader,
  latin1Bytes,
  parseRequestHead,
  parseResponseHead,
  type RequestHead,
  requestText,
  type ResponseHead,
  responseText,
  serializeResponseHead,
} from "./http1.ts";
import { checkKnown, checkNested } from "./option_hints.ts";
import { checkBoolean, type OptionNames } from "./options.ts";
import {
  Protocol,
  PROTOCOL_OPTIONS,
  type ProtocolOptions,
  type ProtocolState,
} from "./protocol.ts";

/** Options of an {@linkcode Endpoint}. */
export interface EndpointOptions extends Omit<ProtocolOptions, "extensions"> {
  /**
   * The supported extensions, in order of preference.
   * @default {[]}
   */
  extensions?: readonly ExtensionFactory[] | undefined;
  /** Limits for the head that the peer sends. */
  limits?: HeadLimits | undefined;
  /**
   * On a client: whether the handshake fails if the server chooses none of the offered
   * subprotocols, as in a browser.
   * @default {false}
   */
  requireProtocol?: boolean | undefined;
}

const ENDPOINT_OPTIONS: OptionNames<EndpointOptions> = {
  ...PROTOCOL_OPTIONS,
  limits: (name, value) => checkNested(name, value, HEAD_LIMITS),
  requireProtocol: checkBoolean,
};

const HANDSHAKE_EVENTS: readonly string[] = ["request", "accept", "reject", "rejectData"];

const EMPTY = new Uint8Array(0);
const NONE: readonly ExtensionFactory[] = [];
const NO_EXTENSIONS: ReturnType<typeof acceptExtensions> = { headers: [], extensions: [] };
const NO_FIELDS: RawHeaders = [];

/** What a client offers, and the extensions that made the offers. */
interface Offered extends HandshakeOffer {
  factories: readonly ExtensionFactory[];
}

/** What the opening handshake has led to. */
interface Opened {
  machine: Protocol;
  agreement: Agreement;
  request: RequestHead;
  response: ResponseHead;
  /**
   * The heads as text, which takes less memory. Of the response of a server over HTTP/1.1, only the
   * added header fields: the rest follows from the request.
   */
  texts: { request: string; response: string | RawHeaders };
}

/** Connections without a subprotocol and extensions share it. */
const NO_AGREEMENT: Agreement = Object.freeze({ protocol: "", extensions: NO_EXTENSIONS.headers });

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
  readonly #options: EndpointOptions;
  #state: "connecting" | "rejecting" | "closed" = "connecting";
  /** Reads the peer's head, unless another parser does. Not set after the head has been read. */
  #reader: HeadReader<RequestHead | ResponseHead> | undefined;
  /** Input that has not been read. Null is the end of the input. */
  #input: (Uint8Array | null)[] = [];
  #inputBegun = false;
  #inputEnded = false;
  /** Whether the request was returned as an event, or never will be. */
  #asked = false;
  #request: RequestHead | undefined;
  #response: ResponseHead | undefined;
  /** The heads as text, if they were sent or received so. */
  #requestText: string | undefined;
  #responseText: string | undefined;
  /** The header fields that a server has added to its response over HTTP/1.1. */
  #added: RawHeaders | undefined;
  /** The header fields of the peer's head over HTTP/2. */
  #received: RawHeaders | undefined;
  /** The header fields of the client's own head over HTTP/2. */
  #fields: RawHeaders | undefined;
  /** The key of a request over HTTP/1.1. */
  #key = "";
  /** On a client: what it offers. */
  #offered: Offered | undefined;
  /** On a server: what the client offers. */
  #offer: ReceivedOffer | undefined;
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
   * @param areChecked Whether the role and the options have been checked. Internal.
   * @throws {TypeError} If the role or an option does not exist, or an option has the wrong type.
   * @throws {RangeError} If a limit is negative or NaN.
   */
  constructor(role: Role, options: EndpointOptions = {}, areChecked: boolean = false) {
    if (!areChecked) {
      checkRole(role);
      checkKnown("Endpoint", options, ENDPOINT_OPTIONS);
    }
    this.role = role;
    this.#options = options;
  }

  /**
   * The state of the connection: "connecting" during the opening handshake; "rejecting" while the
   * body of a refusal is not complete; then the state of the protocol.
   */
  get state(): "connecting" | "rejecting" | ProtocolState {
    return this.#protocol?.state ?? this.#state;
  }

  /** The head of the request, or undefined until it has been sent or received. */
  get request(): RequestHead | undefined {
    return this.#request;
  }

  /** The head of the response, or undefined until it has been sent or received. */
  get response(): ResponseHead | undefined {
    return this.#response;
  }

  /**
   * What the opening handshake has led to, once the connection is open.
   * @internal
   */
  get opened(): Opened {
    const request = this.#request!;
    const response = this.#response!;
    const texts = {
      request: this.#requestText ?? requestText(request),
      response: this.#added ?? this.#responseText ?? responseText(response),
    };
    return { machine: this.#protocol!, agreement: this.#agreement!, request, response, texts };
  }

  /** On a server: what the client offers, or undefined until its request has been checked. */
  get offer(): ReceivedOffer | undefined {
    return this.#offer;
  }

  /** What both ends agreed on, or undefined until the connection is open. */
  get agreement(): Agreement | undefined {
    return this.#agreement;
  }

  /** The header fields of the head that was sent over HTTP/2. */
  get fields(): RawHeaders | undefined {
    if (this.role === "client") return this.#fields;
    return this.#response && http2ResponseFields(this.#response);
  }

  /**
   * On a server: whether the request is a HEAD, even if it is incomplete or wrong. Then no body is
   * sent (RFC 9110 §9.3.2).
   */
  get isHead(): boolean {
    if (this.#request !== undefined) return this.#request.method === "HEAD";
    return this.role === "server" && this.#reader?.startsWith("HEAD ") === true;
  }

  /**
   * The protocol after the opening handshake, for example to write batches.
   * @throws {LocalProtocolError} If the connection is not open yet.
   */
  get protocol(): Protocol {
    if (this.#protocol !== undefined) return this.#protocol;
    throw new LocalProtocolError(`The connection was never open: its state is ${this.state}`);
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
  takeHead(head: RequestHead, trailing?: Uint8Array): void {
    if (this.role === "client") {
      throw new LocalProtocolError("Cannot take a request: this end is a client");
    }
    if (this.#inputBegun || this.#request !== undefined) {
      throw new LocalProtocolError("Cannot take a request: other input came before");
    }
    this.#request = head;
    if (trailing !== undefined && trailing.length > 0) this.#input.push(trailing);
  }

  /**
   * Takes the header fields of the request, or of the final response, over HTTP/2. `next()` then
   * returns its event. `receive()` takes the data of the stream.
   * @throws {LocalProtocolError} If this end is a client that has not sent its request, or has
   * received other input.
   * @throws {HandshakeError} If a pseudo-header field occurs twice ("malformed-header").
   */
  takeFields(fields: RawHeaders): void {
    if (this.role === "server") this.takeHead(http2RequestHead(fields));
    else if (this.#offered === undefined || this.#response !== undefined) {
      const why = this.#response === undefined ? "the request has not been sent" : "there is one";
      throw new LocalProtocolError(`Cannot take a response: ${why}`);
    } else this.#response = http2ResponseHead(fields);
    this.#received = fields;
  }

  /**
   * Adds the next bytes from the transport, or null at its end. Bytes after the handshake are kept.
   * Bytes after the peer's Close frame, or after an error, are dropped.
   * @throws {LocalProtocolError} If the input has ended, the connection is closed, or this end is a
   * client that has not sent its request.
   */
  receive(bytes: Uint8Array | null): void {
    if (this.#protocol !== undefined) return this.#protocol.receive(bytes);
    if (this.#inputEnded) {
      throw new LocalProtocolError("Cannot receive more input: the input has ended");
    }
    if (this.role === "client" && this.#offered === undefined) {
      throw new LocalProtocolError("Cannot receive input: the request has not been sent");
    }
    if (this.#state === "closed" && bytes !== null) {
      throw new LocalProtocolError("Cannot receive input: the connection is closed");
    }
    this.#inputBegun = true;
    this.#inputEnded = bytes === null;
    // A server that refuses ignores what the client sends.
    const refuses = this.role === "server" &&
      (this.#state !== "connecting" || this.#failure !== undefined);
    if (refuses) return;
    // An array that grows by push() reserves room for many items, but most heads have one chunk.
    if (this.#input.length === 0) this.#input = [bytes];
    else this.#input.push(bytes);
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
    if (this.role === "server") {
      const offer = this.#asked ? undefined : this.readRequest();
      if (offer === undefined) return undefined;
      this.#asked = true;
      return requestEvent(this.#request!, offer);
    }
    try {
      if (this.#incoming !== undefined) return this.#nextData(this.#incoming);
      return this.#offered && this.#nextResponse(this.#offered);
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /** Returns the available events. */
  *events(): IterableIterator<EndpointEvent> {
    for (let event = this.next(); event !== undefined; event = this.next()) yield event;
  }

  /**
   * On a server: reads and checks the request. Returns its offer once the request is complete. The
   * input after the request stays unread until the request is answered.
   * @throws {RemoteProtocolError} As `next()`.
   * @internal
   */
  readRequest(): ReceivedOffer | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#offer !== undefined) return this.#offer;
    try {
      if (this.#received !== undefined) return this.#offer = checkHttp2Request(this.#received);
      const isParsed = this.#request === undefined;
      this.#request ??= this.#readHead(parseRequestHead, "request");
      if (this.#request === undefined) return undefined;
      const offer = checkRequest(this.#request, isParsed);
      this.#key = offer.key;
      return this.#offer = offer;
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /**
   * On a server: returns the input after the request, and forgets it.
   * @internal
   */
  takeInput(): (Uint8Array | null)[] {
    const input = this.#input;
    this.#input = [];
    return input;
  }

  #nextResponse(offered: Offered): EndpointEvent | undefined {
    try {
      const head = this.#response ??= this.#readHead(parseResponseHead, "response");
      if (head === undefined) return undefined;
      return accepts(head) ? this.#accepted(head, offered) : this.#rejected(head);
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      const { message, code, cause } = error;
      throw new HandshakeError(message, code, { status: this.#response?.status, cause });
    }
  }

  #accepted(head: ResponseHead, offered: Offered): EndpointEvent {
    const agreement = checkResponse(head, this.#key, offered);
    const { protocol, extensions } = agreement;
    this.#begin(finalizeExtensions(extensions, offered.factories));
    this.#agreement = agreement;
    return { type: "accept", protocol, extensions, headers: extraFields(head.headers) };
  }

  /** Reads the peer's head. Later bytes stay in the input. */
  #readHead<T extends RequestHead | ResponseHead>(
    parse: HeadParser<T>,
    what: string,
  ): T | undefined {
    const reader = this.#reader ??= new HeadReader<RequestHead | ResponseHead>(
      parse,
      this.#options.limits,
    );
    const input = this.#input;
    this.#input = [];
    for (let at = 0; at < input.length; at++) {
      const chunk = input[at];
      if (chunk === null) throw lost(what);
      const read = reader.push(chunk);
      if (read === undefined) continue;
      if (this.role === "server") this.#requestText = reader.text;
      else this.#responseText = reader.text;
      this.#reader = undefined;
      this.#input = input.slice(at + 1);
      if (read.rest.length > 0) this.#input.unshift(read.rest);
      return read.head as T;
    }
    return undefined;
  }

  #rejected(response: ResponseHead): EndpointEvent {
    const { status, statusText, headers } = response;
    const body = this.#incoming = bodyReader(response);
    const hasBody = !body.finished;
    this.#state = hasBody ? "rejecting" : "closed";
    return { type: "reject", status, statusText, headers, hasBody };
  }

  #nextData(body: BodyReader): EndpointEvent | undefined {
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
        `Cannot send the event ${event.type} in the state ${this.state}`,
      );
    }
    if (!opens) return this.protocol.send(event);
    if (event.type === "request") return this.#sendRequest(event);
    if (this.role === "client") throw misplaced(event, "this end is a client");
    switch (event.type) {
      case "accept":
        return this.accept(event);
      case "reject":
        if (this.#state === "connecting") return this.#reject(event);
        throw misplaced(event, "the request has been answered");
      default:
        if (this.#state === "rejecting") return this.#rejectData(event, this.#outgoing!);
        throw misplaced(event, "there is no refusal with an unfinished body");
    }
  }

  #sendRequest(event: OutgoingOf<"request">): Uint8Array {
    if (this.role === "server") throw misplaced(event, "this end is a server");
    if (this.#offered !== undefined) throw misplaced(event, "the request has been sent");
    const { requireProtocol } = this.#options;
    const factories = this.#chosen(event);
    const extensions = offerExtensions(factories);
    const offer = { protocols: event.protocols, extensions, requireProtocol, factories };
    let bytes: Uint8Array = EMPTY;
    if (event.scheme === undefined) {
      const { head, key } = upgradeRequest(event, offer);
      this.#request = head;
      bytes = this.#encode(this.#requestText = requestText(head));
      this.#key = key;
    } else {
      const { scheme, host: authority, target: path, headers } = event;
      this.#fields = http2Request({ ...offer, scheme, authority, path, headers });
      this.#request = http2RequestHead(this.#fields);
    }
    this.#offered = offer;
    return bytes;
  }

  /**
   * Sends the event "accept", as `send()`.
   * @internal
   */
  accept(event: OutgoingOf<"accept">): Uint8Array {
    const offer = this.#offer;
    if (this.#state !== "connecting" || offer === undefined) {
      throw misplaced(event, "there is no request to answer");
    }
    const { protocol = "", headers } = event;
    if (protocol !== "" && !offer.protocols.includes(protocol)) throw notOffered(protocol);
    const isPlain = event.extensions === undefined && offer.extensions.length === 0;
    const agreed = isPlain
      ? NO_EXTENSIONS
      : acceptExtensions(offer.extensions, this.#chosen(event));
    try {
      const answer = { protocol, extensions: agreed.headers, headers };
      const isHttp2 = this.#received !== undefined;
      const response = isHttp2
        ? http2ResponseHead(http2Response(answer))
        : upgradeResponse(this.#key, answer);
      this.#response = response;
      if (!isHttp2) this.#added = headers ?? NO_FIELDS;
      const bytes = isHttp2 ? EMPTY : this.#encode(responseText(response));
      this.#agreement = isPlain && protocol === ""
        ? NO_AGREEMENT
        : { protocol, extensions: agreed.headers };
      this.#begin(agreed.extensions);
      return bytes;
    } catch (error) {
      for (const extension of agreed.extensions) extension.close();
      throw error;
    }
  }

  #reject(event: OutgoingOf<"reject">): Uint8Array {
    const { version = "1.1" } = this.#request ?? {};
    const isConnect = headerValue(this.#received ?? NO_FIELDS, ":method") === "CONNECT";
    const request = { version, isHead: this.isHead, isConnect };
    const { response, framing } = refusalResponse(event, request);
    const bytes = this.#received === undefined ? serializeResponseHead(response) : EMPTY;
    this.#response = response;
    this.#state = event.hasBody ? "rejecting" : "closed";
    this.#outgoing = new BodyWriter(framing);
    this.#failure = undefined;
    this.#asked = true;
    this.#input = [];
    return bytes;
  }

  #rejectData(
    { data, bodyFinished = true }: OutgoingOf<"rejectData">,
    body: BodyWriter,
  ): Uint8Array {
    if (!(data instanceof Uint8Array)) {
      throw wrongType(`Expected data to be a Uint8Array, received ${typeof data}`);
    }
    const bytes = body.write(data, bodyFinished);
    if (bodyFinished) this.#state = "closed";
    return bytes;
  }

  #encode(head: string): Uint8Array {
    return (this.#options.textCodec?.encodeLatin1 ?? latin1Bytes)(head);
  }

  #chosen({ extensions }: Pick<OutgoingOf<"request">, "extensions">): readonly ExtensionFactory[] {
    const supported = this.#options.extensions ?? NONE;
    if (extensions === undefined) return supported;
    for (const { name } of extensions) {
      if (supported.some((one) => one.name === name)) continue;
      throw new LocalProtocolError(`The extension ${name} is not one of the endpoint's extensions`);
    }
    return supported.filter(({ name }) => extensions.some((one) => one.name === name));
  }

  #begin(extensions: readonly Extension[]): void {
    const options: Omit<EndpointOptions, "extensions"> = this.#options;
    const protocol = new Protocol(this.role, options, extensions);
    for (const chunk of this.#input) protocol.receive(chunk);
    this.#input = [];
    this.#protocol = protocol;
  }

  #fail(error: unknown): unknown {
    if (!(error instanceof HandshakeError)) return error;
    const { message, status, code } = error;
    // A server may still read the body.
    if (code !== "body") this.#input = [];
    // A client cannot answer a wrong response. It can only end the transport.
    const isAnswerable = this.role === "server" && status !== undefined;
    if (!isAnswerable) this.#state = "closed";
    const headers = refusalHeaders(error, this.#request?.version);
    const event = isAnswerable
      ? { type: "reject" as const, status, statusText: "", headers, hasBody: false }
      : undefined;
    return this.#failure = new RemoteProtocolError(message, 1006, { cause: error, event });
  }
}

function requestEvent({ target, headers }: RequestHead, offer: ReceivedOffer): EndpointEvent {
  const { protocols, extensions } = offer;
  const host = headerValue(headers, "Host")!;
  return { type: "request", host, target, protocols, extensions, headers: extraFields(headers) };
}

function misplaced({ type }: OutgoingEndpointEvent, why: string): LocalProtocolError {
  return new LocalProtocolError(`Cannot send the event ${type}: ${why}`);
}

function isHandshakeEvent(
  event: OutgoingEndpointEvent,
): event is Exclude<OutgoingEndpointEvent, OutgoingEvent> {
  return HANDSHAKE_EVENTS.includes(event.type);
}
