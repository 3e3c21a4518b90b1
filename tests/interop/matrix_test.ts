/**
 * Real peers in both roles. The peers that can do most run nearly all rows. The others run the quick rows, and
 * `deno task interop` runs the rest.
 */
import { after, describe } from "node:test";
import { it } from "../it.ts";
import { type Cell, cellsOf, Session, titleOf } from "./matrix.ts";
import { type Peer, PEERS, unlessThere } from "./peers.ts";

const THOROUGH: readonly Peer[] = [PEERS.ws, PEERS.websockets];

function isSelected({ peer, row, setting }: Cell): boolean {
  if (THOROUGH.includes(peer)) return setting !== "tls" || row.quick === true;
  return row.quick === true && (setting === "plain" || row.kind === "messages");
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
