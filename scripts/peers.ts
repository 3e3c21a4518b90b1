/** Prints the Debian packages of the missing peers, one per line: `deno task peers`. */
import { isThere, PEERS } from "../tests/interop/peers.ts";
import { takeNoArguments } from "./arguments.ts";

await takeNoArguments("peers", Deno.args);
for (const peer of Object.values(PEERS)) if (!isThere(peer)) console.log(peer.package);
