/**
 * Real peers in both roles. The peers that can do most run all rows; with the others the quick rows run, and
 * `deno task interop` runs the rest.
 */
import { after, describe } from "node:test";
import { it } from "../it.ts";
import { type Cell, cellsOf, Session, titleOf } from "./matrix.ts";
import { type Peer, PEERS, unlessThere } from "./peers.ts";

const THOROUGH: readonly Peer[] = [PEERS.ws, PEERS.websockets, PEERS.wsproto];

function isSelected({ peer, row, setting }: Cell): boolean {
  return row.quick || (THOROUGH.includes(peer) && setting !== "tls");
}

for (const peer of Object.values<Peer>(PEERS).filter(({ agent }) => agent !== undefined)) {
  const options = unlessThere(peer);
  const session = new Session(peer);
  describe(`${peer.name} as peer`, () => {
    after(() => session.stop());
    for (const cell of cellsOf(peer)) {
      if (cell.lack !== undefined || !isSelected(cell)) continue;
      it(titleOf(cell), options, () => session.run(cell));
    }
  });
}
