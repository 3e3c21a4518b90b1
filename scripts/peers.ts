/** Prints the Debian packages of the missing peers, one per line: `deno task peers`. */
import { missingPackage, PEERS } from "../tests/interop/peers.ts";
import { takeNoArguments } from "./arguments.ts";

await takeNoArguments("peers", Deno.args);
const missing = Object.values(PEERS).map(missingPackage).filter((name) => name !== undefined);
for (const name of new Set(missing)) console.log(name);
