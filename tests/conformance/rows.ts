/**
 * All rows. Ids that are numbers are those of the Autobahn TestSuite; the sizes of group 9 are
 * smaller than there.
 */
import { CLOSING } from "./closing.ts";
import { FRAMING } from "./framing.ts";
import { LIMITS } from "./limits.ts";
import type { Row } from "./row.ts";
import { UTF8 } from "./utf8.ts";

/** Every conformance row. */
export const ROWS: readonly Row[] = [...FRAMING, ...UTF8, ...CLOSING, ...LIMITS];
