/** A connection between this library and a peer. */
import {
  connect,
  type ConnectOptions,
  serve,
  type ServeOptions,
  type WebSocketConnection,
} from "../../mod.ts";
import type { Role } from "../../lib/core/mod.ts";
import { handled } from "../../lib/abortable.ts";
import { portOf } from "../support.ts";
import type { EndOptions, PeerEnd, PeerProcess } from "./peer_process.ts";

/** How the two ends are opened. */
export interface PairOptions {
  ours?: ConnectOptions & ServeOptions;
  theirs?: EndOptions;
  /** What the client puts before the host in its URL. */
  userInfo?: string;
  /** What it asks for. Default: "/" */
  target?: string;
}

/** Two ends on their way to a connection. */
export interface Opening {
  /** Ours; it stays pending when we are the server and refuse. */
  ours: Promise<WebSocketConnection>;
  theirs: PeerEnd;
  /** Ends both, whatever they are in. */
  stop(): Promise<void>;
}

/** Begins to connect the two, this library in the given role. */
export async function open(
  role: Role,
  peer: PeerProcess,
  options: PairOptions = {},
): Promise<Opening> {
  const theirs = peer.end();
  const url = (port: number) =>
    `ws://${options.userInfo ?? ""}127.0.0.1:${port}${options.target ?? "/"}`;
  if (role === "client") {
    const ours = handled(connect(url(await theirs.listen(options.theirs ?? {})), options.ours));
    const stop = async () => {
      await ours.then((ws) => ws.terminate(), () => {});
      theirs.stop();
    };
    return { ours, theirs, stop };
  }
  let take!: (ws: WebSocketConnection) => void;
  const ours = new Promise<WebSocketConnection>((resolve) => take = resolve);
  const server = await serve({ onError() {}, ...options.ours }, (ws) => {
    take(ws);
    return ws.closed.catch(() => {});
  });
  theirs.connect(url(portOf(server)), options.theirs ?? {});
  const stop = async () => {
    for (const ws of server.connections) ws.terminate();
    theirs.stop();
    await server.shutdown();
  };
  return { ours, theirs, stop };
}
