/**
 * The rows about WebSocketStream in Chromium: with its own class, which shows that they are the
 * standard's, and with the entry point for browsers while Chromium's class is hidden.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { ROWS } from "../websocket_stream/table.ts";
import type { Place } from "../websocket_stream/kit.ts";
import { type Results, runRows } from "./browser.ts";
import { PEERS, unlessThere } from "./peers.ts";

const PLACES: [name: string, place: Place, scheme: "ws" | "wss"][] = [
  ["Chromium's own class", "native", "ws"],
  ["our class in Chromium", "overWebSocket", "wss"],
];

/** Which runtime drives the browser makes no difference to what runs in it. */
const once = process.versions.deno === undefined ? { skip: "Deno drives it" } : {};

for (const [name, place, scheme] of PLACES) {
  const { skip } = { ...unlessThere(PEERS.chromium), ...once } as { skip?: string };
  let running: Promise<Results> | undefined;
  describe(`WebSocketStream: ${name}`, () => {
    for (const { title, except } of ROWS) {
      it(`${name}: ${title}`, { skip: skip ?? except?.[place] ?? false }, async () => {
        const results = await (running ??= runRows(place, scheme));
        assert.equal(results.get(title), "");
      });
    }
  });
}
