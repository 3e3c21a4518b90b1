/** All rows about WebSocketStream. */
import { INTERFACE_ROWS } from "./interface_rows.ts";
import type { Row } from "./kit.ts";
import { STREAM_ROWS } from "./stream_rows.ts";

export const ROWS: readonly Row[] = [...INTERFACE_ROWS, ...STREAM_ROWS];
