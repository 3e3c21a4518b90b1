/**
 * The interface of the npm package `ws` 8: programs that are written for it run on this library. It runs
 * on Node, Bun and Deno.
 *
 * @module
 */
import { createWebSocketStream } from "./ws/stream.ts";
import { WebSocketServer } from "./ws/server.ts";
import { WebSocket } from "./ws/websocket.ts";

// The members of the class that `require("ws")` returns.
Object.assign(WebSocket, {
  createWebSocketStream,
  Server: WebSocketServer,
  WebSocket,
  WebSocketServer,
});

export default WebSocket;
export { createWebSocketStream, WebSocket, WebSocketServer };
export { WebSocketServer as Server };
export {
  type BufferLike,
  type ControlCallback,
  type SendOptions,
  type WebSocketEvents,
} from "./ws/websocket.ts";
export type { WebSocketServerEvents } from "./ws/server.ts";
export type { SendCallback } from "./ws/outlet.ts";
export type { BinaryType } from "./ws/inlet.ts";
export type {
  CloseEvent,
  Data,
  ErrorEvent,
  Event,
  EventListener,
  EventListenerOptions,
  MessageEvent,
  RawData,
  WebSocketEventMap,
} from "./ws/event_target.ts";
export type {
  ClientOptions,
  ConnectionOptions,
  FinishRequestCallback,
  PerMessageDeflateOptions,
  ServerOptions,
  VerifyClientCallbackAsync,
  VerifyClientCallbackSync,
  VerifyClientInfo,
} from "./ws/options.ts";
