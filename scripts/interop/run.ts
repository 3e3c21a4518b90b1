/**
 * Runs cells of the interop matrix on the runtime that runs this file. The arguments are the peers and the
 * cases, separated by commas. Prints a line of JSON for each {@linkcode Told}.
 */
import { availableParallelism } from "node:os";
import process from "node:process";
import { type Case, cellsOf, otherRole, Session, titleOf } from "../../tests/interop/matrix.ts";
import { missingFor, type Peer, PEERS } from "../../tests/interop/peers.ts";
import type { Told } from "./told.ts";

function tell(told: Told): void {
  console.log(JSON.stringify(told));
}

async function runPeer(peer: Peer, cases: readonly string[]): Promise<void> {
  const missing = missingFor(peer);
  if (missing !== undefined) return tell({ event: "missing", peer: peer.name, missing });
  const session = new Session(peer);
  const started = performance.now();
  try {
    tell({ event: "version", peer: peer.name, version: await session.version() });
    for (const cell of cellsOf(peer).filter((cell) => cases.includes(cell.case))) {
      const place = { peer: peer.name, as: otherRole(cell.role), case: cell.case satisfies Case };
      const lacks = cell.lack === undefined ? cell.partial : [cell.lack];
      for (const { why } of lacks) tell({ event: "lack", ...place, why });
      if (cell.lack !== undefined) continue;
      const title = titleOf(cell);
      const problem = await session.run(cell).then(() => undefined, String);
      tell({ event: "cell", ...place, title, problem });
    }
  } finally {
    await session.stop();
  }
  tell({ event: "end", peer: peer.name, seconds: (performance.now() - started) / 1000 });
}

const [peers, cases] = process.argv.slice(2).map((list) => list.split(","));
const queue = Object.values<Peer>(PEERS).filter(({ name }) => peers.includes(name));
await Promise.all(Array.from({ length: availableParallelism() }, async () => {
  for (let peer = queue.shift(); peer !== undefined; peer = queue.shift()) {
    await runPeer(peer, cases);
  }
}));
// A runtime may keep running for a program that has been ended.
process.exit();
