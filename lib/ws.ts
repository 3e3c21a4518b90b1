/**
 * The interface of the npm package `ws` 8: programs that are written for it run on this library. It runs
 * on Node, Bun and Deno.
 *
 * @module
 */
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type * as Events from "./ws/event_target.ts";
import type * as Options from "./ws/options.ts";
import { Receiver } from "./ws/receiver.ts";
import { Sender } from "./ws/sender.ts";
import { createWebSocketStream } from "./ws/stream.ts";
import type * as Servers from "./ws/server.ts";
import { WebSocketServer } from "./ws/server.ts";
import { WebSocket } from "./ws/websocket.ts";

/** The members of the class that are classes and functions themselves, as in `require("ws")`. */
export interface WebSocketStatics {
  /** See {@linkcode Receiver}. */
  readonly Receiver: typeof Receiver;
  /** See {@linkcode Sender}. */
  readonly Sender: typeof Sender;
  /** The same as {@linkcode WebSocketServer}. */
  readonly Server: typeof WebSocketServer;
  /** The class itself. */
  readonly WebSocket: typeof WebSocket;
  /** See {@linkcode WebSocketServer}. */
  readonly WebSocketServer: typeof WebSocketServer;
  /** See {@linkcode createWebSocketStream}. */
  readonly createWebSocketStream: typeof createWebSocketStream;
}

/** The class with its {@linkcode WebSocketStatics}, as the package `ws` exports it. */
const Default: typeof WebSocket & WebSocketStatics = Object.assign(WebSocket, {
  Receiver,
  Sender,
  Server: WebSocketServer,
  WebSocket,
  WebSocketServer,
  createWebSocketStream,
});

/** See {@linkcode WebSocket}. */
type Default = WebSocket;

/** The types that are used as `WebSocket.RawData` and so on. */
declare namespace Default {
  /** See {@linkcode AddressInfo}. */
  export type AddressInfo = import("node:net").AddressInfo;
  /** See {@linkcode CertMeta}. */
  export type CertMeta = Options.CertMeta;
  /** See {@linkcode ClientOptions}. */
  export type ClientOptions = Options.ClientOptions;
  /** See {@linkcode CloseEvent}. */
  export type CloseEvent = Events.CloseEvent<WebSocket>;
  /** See {@linkcode Data}. */
  export type Data = Events.Data;
  /** See {@linkcode ErrorEvent}. */
  export type ErrorEvent = Events.ErrorEvent<WebSocket>;
  /** See {@linkcode Event}. */
  export type Event = Events.Event<WebSocket>;
  /** See {@linkcode EventListenerOptions}. */
  export type EventListenerOptions = Events.EventListenerOptions;
  /** See {@linkcode FinishRequestCallback}. */
  export type FinishRequestCallback = Options.FinishRequestCallback<WebSocket>;
  /** See {@linkcode MessageEvent}. */
  export type MessageEvent = Events.MessageEvent<WebSocket>;
  /** See {@linkcode PerMessageDeflateOptions}. */
  export type PerMessageDeflateOptions = Options.PerMessageDeflateOptions;
  /** See {@linkcode RawData}. */
  export type RawData = Events.RawData;
  /** See {@linkcode Server}. */
  export type Server<
    T extends typeof WebSocket = typeof WebSocket,
    U extends typeof IncomingMessage = typeof IncomingMessage,
  > = WebSocketServer<T, U>;
  /** See {@linkcode ServerOptions}. */
  export type ServerOptions<
    T extends typeof WebSocket = typeof WebSocket,
    U extends typeof IncomingMessage = typeof IncomingMessage,
  > = Servers.ServerOptions<T, U>;
  /** See {@linkcode VerifyClientCallbackAsync}. */
  export type VerifyClientCallbackAsync<Request extends IncomingMessage = IncomingMessage> =
    Options.VerifyClientCallbackAsync<Request>;
  /** See {@linkcode VerifyClientCallbackSync}. */
  export type VerifyClientCallbackSync<Request extends IncomingMessage = IncomingMessage> =
    Options.VerifyClientCallbackSync<Request>;
  /** See {@linkcode WebSocketEventMap}. */
  export type WebSocketEventMap = Events.WebSocketEventMap<WebSocket>;
}

export default Default;
export { createWebSocketStream, Receiver, Sender, WebSocket, WebSocketServer };
export { WebSocketServer as Server };
export type { BufferLike, ControlCallback, SendOptions, WebSocketEvents } from "./ws/websocket.ts";
export type { ServerOptions, WebSocketServerEvents } from "./ws/server.ts";
export type { SendCallback } from "./ws/outlet.ts";
export type { BinaryType, InletOptions } from "./ws/inlet.ts";
export type { AgreedExtensions, ReceiverOptions } from "./ws/receiver.ts";
export type { SenderFrameOptions, SenderOptions } from "./ws/sender.ts";
export type {
  AnyListener,
  CloseEvent as CloseEventOf,
  Data,
  Emitter,
  ErrorEvent as ErrorEventOf,
  Event as EventOf,
  EventListener,
  EventListenerOptions,
  Listener,
  Listening,
  MessageEvent as MessageEventOf,
  RawData,
  WebSocketEventMap as WebSocketEventMapOf,
} from "./ws/event_target.ts";
/** The end of a connection. */
export type CloseEvent = Events.CloseEvent<WebSocket>;
/** An error. A 'close' event follows. */
export type ErrorEvent = Events.ErrorEvent<WebSocket>;
/** An event of a WebSocket. */
export type Event = Events.Event<WebSocket>;
/** A message. */
export type MessageEvent = Events.MessageEvent<WebSocket>;
/** The events that have an event object. */
export type WebSocketEventMap = Events.WebSocketEventMap<WebSocket>;
/** Changes a request before it is sent. The function must call `request.end()`. */
export type FinishRequestCallback = Options.FinishRequestCallback<WebSocket>;
export type { AddressInfo };
export type {
  CertMeta,
  ClientOptions,
  ConnectionOptions,
  FinishRequestCallback as FinishRequestCallbackOf,
  PerMessageDeflateOptions,
  VerifyClientCallbackAsync,
  VerifyClientCallbackSync,
  VerifyClientInfo,
} from "./ws/options.ts";
