/** All targets by name. */
import { API } from "./api.ts";
import { CORE } from "./core.ts";
import { DEFLATE } from "./deflate.ts";
import { LIVE } from "./live.ts";
import { NEIGHBOURS } from "./neighbours.ts";
import type { Target } from "./target.ts";
import { TOPICS } from "./topics.ts";

/** All targets by name. */
export const TARGETS: Readonly<Record<string, Target>> = {
  ...CORE,
  ...NEIGHBOURS,
  ...DEFLATE,
  ...LIVE,
  ...TOPICS,
  ...API,
};
