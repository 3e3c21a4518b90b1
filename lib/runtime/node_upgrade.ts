/** The transport and the request head of an 'upgrade' event of `node:http`. */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import process from "node:process";
import type { Duplex } from "node:stream";
import { HandshakeError } from "../core/error.ts";
import { parseUpgrade } from "../core/header.ts";
import type { RequestHead } from "../core/http1.ts";
import { type Address, tcpAddress, type Transport } from "../transport.ts";
import { NodeTransport } from "./node.ts";

export function upgradedTransport(duplex: Duplex): Transport {
  const socket = duplex as Socket;
  // By default, a socket of node:https ends itself when the peer ends.
  socket.allowHalfOpen = true;
  return new NodeTransport(socket);
}

/** The methods that show that a listener takes a socket. A proxy first calls only setters. */
const USES = [
  "on",
  "addListener",
  "prependListener",
  "write",
  "end",
  "destroy",
  "pause",
  "resume",
  "unshift",
  "setTimeout",
  "setNoDelay",
  "setKeepAlive",
];

/** Watches a socket. The returned function ends the watch and tells whether the socket was used. */
export function watchUse(socket: Duplex): () => boolean {
  ignoreErrors(socket);
  const methods = socket as unknown as Record<string, unknown>;
  let isUsed = false;
  const restores = USES.map((name) => {
    const own = Object.getOwnPropertyDescriptor(methods, name);
    const method = methods[name];
    if (typeof method !== "function") return () => {};
    const noted = (...args: unknown[]) => {
      // Bun itself adds a 'close' listener after the event.
      isUsed ||= args[0] !== "close";
      return method.apply(socket, args);
    };
    methods[name] = noted;
    return () => {
      // Another listener may have replaced the method.
      if (methods[name] !== noted) return;
      delete methods[name];
      if (own !== undefined) Object.defineProperty(methods, name, own);
    };
  });
  return () => {
    for (const restore of restores) restore();
    // A listener that was called earlier may have answered already.
    const isDone = socket.destroyed || socket.writableEnded || (socket as Socket).bytesWritten > 0;
    return isUsed || isDone;
  };
}

/** Adds an 'error' listener. Without one, a client that resets its connection would end the process. */
export function ignoreErrors(socket: Duplex): void {
  socket.on("error", () => {});
}

/** Whether a request asks for a WebSocket, and not for another protocol such as h2c. */
export function isForWebSocket({ headers: { upgrade = "" } }: IncomingMessage): boolean {
  try {
    return parseUpgrade(upgrade).some((name) => name.toLowerCase() === "websocket");
  } catch {
    return false;
  }
}

export function remoteAddress(socket: Duplex): Address | undefined {
  const { remoteAddress, remotePort } = socket as Socket;
  return tcpAddress(remoteAddress, remotePort);
}

export function isEncrypted(socket: Duplex): boolean {
  return (socket as { encrypted?: boolean }).encrypted === true;
}

/** Returns the head of a request. The fields keep their order and their repetitions. */
export function headOf(
  { method = "", url = "", httpVersion, rawHeaders }: IncomingMessage,
): RequestHead {
  const headers: [string, string][] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) headers.push([rawHeaders[i], rawHeaders[i + 1]]);
  return { method, target: url, version: httpVersion, headers };
}

/** Refuses sockets of `node:tls` on a runtime that continues to read while they are paused. */
export function checkEncrypted(encrypted: boolean): void {
  if (!encrypted || process.versions.deno === undefined) return;
  throw new HandshakeError(
    "node:https is not supported on Deno, which cannot pause its sockets: use serve({ tls })",
    "unsupported",
    { status: 501 },
  );
}
