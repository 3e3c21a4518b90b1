import { interop } from "./interop.ts";
import { PEERS } from "./peers.ts";

interop(PEERS.websockets);
