/**
 * The rows of `websocket_stream/` that name a fault, and the values that a caller may pass to a
 * WebSocketStream.
 */
import { after, before, describe, it } from "node:test";
import { WebSocketError, WebSocketStream } from "../../mod.ts";
import { certificates } from "../certificates.ts";
import type { Env } from "../websocket_stream/kit.ts";
import { type PeerServer, startPeers } from "../websocket_stream/server.ts";
import { ROWS } from "../websocket_stream/table.ts";

for (const fault of ["E1", "E2", "E3", "E4", "E5", "E6"]) {
  describe(`${fault} on a WebSocketStream`, () => {
    let env: Env;
    let peers: PeerServer;
    before(async () => {
      peers = await startPeers(await certificates());
      env = {
        WebSocketStream,
        WebSocketError,
        url: peers.ws,
        control: peers.control,
      } as unknown as Env;
    });
    after(() => peers.close());

    for (const { title, run } of ROWS.filter(({ title }) => title.split(/[ :]/).includes(fault))) {
      it(`${fault} ${title}`, async () => {
        await run(env);
      });
    }
  });
}
