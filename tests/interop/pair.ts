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

/** The options for opening the two ends. */
export interface PairOptions {
  ours?: ConnectOptions & ServeOptions;
  theirs?: EndOptions;
  /** The user information in the client's URL. */
  userInfo?: string;
  /** The path that the client requests. Default: "/" */
  target?: string;
}

/** Two ends that are about to connect. */
export interface Opening {
  /** Our end. The promise stays pending if we are the server and refuse. */
  ours: Promise<WebSocketConnection>;
  theirs: PeerEnd;
  /** Ends both, whatever their state. */
  stop(): Promise<void>;
}

/** Starts to connect the two. This library has the given role. */
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
