/**
 * The rows about WebSocketStream in Chromium: with Chromium's own class, to show that the rows follow the
 * standard, and with the entry point for browsers while Chromium's class is hidden.
 */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { it, knownLimit } from "../it.ts";
import { ROWS } from "../websocket_stream/table.ts";
import type { Place } from "../websocket_stream/kit.ts";
import { type Results, runRows } from "./browser.ts";
import { PEERS, unlessThere } from "./peers.ts";

const PLACES: [name: string, place: Place, scheme: "ws" | "wss"][] = [
  ["Chromium's own class", "native", "ws"],
  ["our class in Chromium", "overWebSocket", "wss"],
];

for (const [name, place, scheme] of PLACES) {
  const { skip } = unlessThere(PEERS.chromium);
  let running: Promise<Results> | undefined;
  describe(`WebSocketStream: ${name}`, () => {
    for (const { title, except } of ROWS) {
      const limit = except?.[place];
      const why = skip ?? (limit !== undefined && knownLimit(limit));
      it(`${name}: ${title}`, { skip: why }, async () => {
        const results = await (running ??= runRows(place, scheme));
        assert.equal(results.get(title), "");
      });
    }
  });
}
