/** The rows about WebSocketStream on the running runtime, over TCP and TLS. */
import { after, before, describe, it } from "node:test";
import { WebSocketError, WebSocketStream } from "../mod.ts";
import { certificates } from "./certificates.ts";
import type { Env } from "./websocket_stream/kit.ts";
import { type PeerServer, startPeers } from "./websocket_stream/server.ts";
import { ROWS } from "./websocket_stream/table.ts";

for (const scheme of ["ws", "wss"] as const) {
  describe(`WebSocketStream over ${scheme}`, () => {
    let env: Env;
    let peers: PeerServer;
    before(async () => {
      const made = await certificates();
      peers = await startPeers(made);
      env = {
        WebSocketStream,
        WebSocketError,
        url: peers[scheme],
        control: peers.control,
        options: scheme === "wss" ? { tls: { ca: made.ca } } : {},
      } as unknown as Env;
    });
    after(() => peers.close());

    for (const { title, run } of ROWS) {
      it(`${scheme} ${title}`, async () => {
        await run(env);
      });
    }
  });
}
