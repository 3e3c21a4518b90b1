/** The implementations of the interface of `ws` that the tests compare, and a pair of connected ends. */
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import process from "node:process";
import * as theirs from "ws";
import * as ours from "../../lib/ws.ts";
import { notApplicable } from "../it.ts";

/** What both implementations export. The types of ours are used for both. */
export interface Implementation {
  WebSocket: typeof ours.WebSocket;
  WebSocketServer: typeof ours.WebSocketServer;
  createWebSocketStream: typeof ours.createWebSocketStream;
  Receiver: typeof ours.Receiver;
  Sender: typeof ours.Sender;
}

export type Name = "sluice" | "ws";

export const IMPLEMENTATIONS: Readonly<Record<Name, Implementation>> = {
  sluice: ours,
  ws: theirs as unknown as Implementation,
};

/** Bun replaces the package `ws` by a module of its own. */
export const HAS_WS: boolean = process.versions.bun === undefined;

/** The client and the server of a scenario. */
export type Pairing = readonly [client: Name, server: Name];

/** The pairings to run. That of `ws` with itself shows that the tables say what `ws` does. */
export const PAIRINGS: readonly Pairing[] = [
  ["sluice", "sluice"],
  ["sluice", "ws"],
  ["ws", "sluice"],
  ["ws", "ws"],
];

/** The option that skips a pairing that is not possible. */
export function unlessReplaced(pairing: Pairing): { skip: string | boolean } {
  const isReplaced = !HAS_WS && pairing.includes("ws");
  return { skip: isReplaced && notApplicable("Bun has a module of its own for the package ws") };
}

type ClientOptions = ConstructorParameters<Implementation["WebSocket"]>[2];
type ServerOptions = ConstructorParameters<Implementation["WebSocketServer"]>[0];

export interface PairOptions {
  client?: ClientOptions;
  server?: ServerOptions;
  path?: string;
  protocols?: string[];
}

/** What happens at one end, in order. */
export type Log = string[];

/** A server with one client. */
export interface Ends {
  client: ours.WebSocket;
  server: ours.WebSocket;
  request: IncomingMessage;
  wss: ours.WebSocketServer;
  /** What has happened at both ends. */
  log: { client: Log; server: Log };
}

/** Notes the events of an end. Text and bytes are told apart; a long message is its length. */
export function record(ws: ours.WebSocket, log: Log): void {
  const show = (data: unknown) => {
    const text = String(data);
    return text.length > 40 ? `${text.length} characters` : JSON.stringify(text);
  };
  ws.on("open", () => log.push("open"));
  ws.on("message", (data, isBinary) => log.push(`${isBinary ? "binary" : "text"} ${show(data)}`));
  ws.on("ping", (data) => log.push(`ping ${show(data)}`));
  ws.on("pong", (data) => log.push(`pong ${show(data)}`));
  ws.on("error", (error) => {
    const { code = error.name } = error as { code?: string };
    log.push(`error ${code}: ${error.message} (${ws.readyState})`);
  });
  ws.on("close", (code, reason) => log.push(`close ${code} ${show(reason)} (${ws.readyState})`));
}

/** Connects a client to a server. The client's listeners are added before it connects. */
export async function connect(
  [client, server]: Pairing,
  options: PairOptions = {},
): Promise<Ends> {
  const { WebSocketServer } = IMPLEMENTATIONS[server];
  const { WebSocket } = IMPLEMENTATIONS[client];
  const wss = new WebSocketServer({ port: 0, host: "127.0.0.1", ...options.server });
  if (wss.address() === null) await once(wss, "listening");
  const log: Ends["log"] = { client: [], server: [] };
  const connected = once(wss, "connection").then(([ws, request]) => {
    record(ws as ours.WebSocket, log.server);
    return [ws, request] as [ours.WebSocket, IncomingMessage];
  });
  const url = `ws://127.0.0.1:${portOf(wss)}${options.path ?? "/"}`;
  const ws = new WebSocket(url, options.protocols ?? [], options.client);
  record(ws, log.client);
  const opened = once(ws, "open");
  const [serverSide, request] = await connected;
  await opened;
  return { client: ws, server: serverSide, request, wss, log };
}

export function portOf(wss: ours.WebSocketServer): number {
  return (wss.address() as { port: number }).port;
}

/** Waits for 'close'. Unlike `once()`, it does not reject after an error. */
export function closed(ws: ours.WebSocket): Promise<void> {
  if (ws.readyState === ws.CLOSED) return Promise.resolve();
  return new Promise((resolve) => ws.on("close", () => resolve()));
}

/** Waits until both ends have closed, and stops the server. */
export async function ended({ client, server, wss }: Ends): Promise<void> {
  await Promise.all([closed(client), closed(server)]);
  await new Promise<void>((resolve) => wss.close(() => resolve()));
}
