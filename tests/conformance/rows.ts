/**
 * All conformance rows. Numeric ids are those of the Autobahn TestSuite. The messages of group 9 are smaller
 * than in that suite.
 */
import { CLOSING } from "./closing.ts";
import { FRAMING } from "./framing.ts";
import { LIMITS } from "./limits.ts";
import type { Row } from "./row.ts";
import { UTF8 } from "./utf8.ts";

export const ROWS: readonly Row[] = [...FRAMING, ...UTF8, ...CLOSING, ...LIMITS];
