/** The rows about the streams of a WebSocketStream, with the streams of a server's connection. */
import { after, before, describe, it } from "node:test";
import { accept, WebSocketError } from "../mod.ts";
import { transportPair } from "../lib/testing.ts";
import { certificates } from "./certificates.ts";
import { RawPeer } from "./support.ts";
import type { Env, Info, OpenInfo, Stream } from "./websocket_stream/kit.ts";
import { type PeerServer, startPeers } from "./websocket_stream/server.ts";
import { STREAM_ROWS } from "./websocket_stream/stream_rows.ts";

/**
 * The rows that only a client can pass: the handshake, the arguments of its `close()`, and bytes that are
 * copied out of the received data.
 */
const CLIENT_ONLY = /^(failed handshake|signal|close\(\) during|close\((?!\)))|buffer of its own/;

/** A connection of a server in the shape of a WebSocketStream. Its peer is a raw client. */
class ServerStream implements Stream {
  static peers: PeerServer;
  readonly url: string;
  readonly opened: Promise<OpenInfo>;
  readonly closed: Promise<Info>;
  #close: (info?: Info) => void = () => {};

  constructor(url: string) {
    this.url = url;
    const [near, far] = transportPair();
    ServerStream.peers.adopt(url, new RawPeer(far, "client"));
    const connection = accept(near, { maxMessageSize: Infinity, pingInterval: 0 });
    this.opened = connection.then((ws) => {
      this.#close = (info) => void ws.close(info);
      const { readable, writable, extensions, protocol } = ws;
      return { readable, writable, extensions, protocol };
    });
    this.closed = connection.then((ws) => ws.closed);
  }

  close(info?: Info): void {
    this.#close(info);
  }
}

describe("The streams of a server's connection", () => {
  let env: Env;
  before(async () => {
    const peers = ServerStream.peers = await startPeers(await certificates());
    const { ws: url, control } = peers;
    env = { WebSocketStream: ServerStream, WebSocketError, url, control } as unknown as Env;
  });
  after(() => ServerStream.peers.close());

  const rows = STREAM_ROWS.filter(({ title, except }) =>
    !CLIENT_ONLY.test(title) && except?.connection === undefined
  );
  for (const { title, run } of rows) {
    it(`On a server: ${title}`, async () => {
      await run(env);
    });
  }
});
