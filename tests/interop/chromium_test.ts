/**
 * The rows about WebSocketStream in Chromium: with its own class, which shows that they are the
 * standard's, and with the entry point for browsers while Chromium's class is hidden.
 */
import { before, describe, it } from "node:test";
import assert from "node:assert/strict";
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
  describe(`WebSocketStream: ${name}`, { skip }, () => {
    let results: Results;
    before(async () => {
      results = await runRows(place, scheme);
    });
    for (const { title, except } of ROWS) {
      it(`${name}: ${title}`, { skip: skip ?? except?.[place] ?? false }, () => {
        assert.equal(results.get(title), "");
      });
    }
  });
}
