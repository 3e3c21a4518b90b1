/** Prints the Debian packages of the peers that are missing here, one a line: `deno task peers`. */
import { isThere, PEERS } from "../tests/interop/peers.ts";

for (const peer of Object.values(PEERS)) if (!isThere(peer)) console.log(peer.package);
