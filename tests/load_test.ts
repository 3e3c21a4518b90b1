/** A short test under load. `deno task soak load` runs a longer one. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { startLoadServer, underLoad } from "./load.ts";
import { withoutLeak } from "./resources.ts";

describe("A server under load", () => {
  it("500 idle and 50 active connections, one that does not read, a flood of bad handshakes, then shutdown", async () => {
    await withoutLeak(async () => {
      const server = await startLoadServer();
      const report = await underLoad({ idle: 500, active: 50, seconds: 5 }, server);
      assert.ok(report.messages > 0 && report.bad > 0 && report.good > 0);
      console.log(JSON.stringify(report));
    });
  });
});
