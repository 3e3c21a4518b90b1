/** What `run.ts` tells `interop.ts`. */
import type { Case } from "../../tests/interop/matrix.ts";

/** A place in the table. `as` is the role of the peer. */
interface Place {
  peer: string;
  as: "client" | "server";
  case: Case;
}

export type Told =
  | { event: "missing"; peer: string; missing: string }
  | { event: "version"; peer: string; version: string }
  | Place & { event: "lack"; why: string }
  | Place & { event: "cell"; title: string; problem?: string }
  | { event: "end"; peer: string; seconds: number };
