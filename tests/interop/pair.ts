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
import { HOST } from "../ports.ts";
import { portOf } from "../support.ts";
import type { Credentials } from "./credentials.ts";
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

/** The way between the two ends. */
export interface Way {
  /** The certificates, if the connection uses TLS. */
  credentials?: Credentials;
  /** The port of a proxy, and the port where the proxy expects the server. A proxy terminates TLS. */
  proxy?: { port: number; backend: number };
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
  { ours: mine, theirs: their, userInfo = "", target = "/" }: PairOptions = {},
  { credentials, proxy }: Way = {},
): Promise<Opening> {
  const theirs = peer.end();
  const server = { port: proxy?.backend ?? 0 };
  const secure = proxy === undefined ? credentials : undefined;
  const url = (port: number) =>
    `${credentials ? "wss" : "ws"}://${userInfo}${HOST}:${proxy?.port ?? port}${target}`;
  if (role === "client") {
    const port = await theirs.listen({ ...server, tls: secure?.leafFiles, ...their });
    const ours = handled(connect(url(port), { tls: { ca: credentials?.ca }, ...mine }));
    const stop = async () => {
      await ours.then((ws) => ws.terminate(), () => {});
      theirs.stop();
    };
    return { ours, theirs, stop };
  }
  let take!: (ws: WebSocketConnection) => void;
  const ours = new Promise<WebSocketConnection>((resolve) => take = resolve);
  const options = { ...server, hostname: HOST, tls: secure?.leaf, onError() {}, ...mine };
  const listening = await serve(options, (ws) => {
    take(ws);
    return ws.closed.catch(() => {});
  });
  theirs.connect(url(portOf(listening)), { ca: credentials?.caFile, ...their });
  const stop = async () => {
    for (const ws of listening.connections) ws.terminate();
    theirs.stop();
    await listening.shutdown();
  };
  return { ours, theirs, stop };
}
