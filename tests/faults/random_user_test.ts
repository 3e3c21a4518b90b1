/** What the random user of `deno task fuzz api` has found. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { pair } from "../../lib/testing.ts";
import { rejection } from "../support.ts";

describe("send() of a stream whose signal is aborted already", () => {
  const REASON = new Error("no longer wanted");

  for (const state of ["open", "closed"] as const) {
    it(`send() cancels the stream with the reason, on a connection that is ${state}`, async () => {
      const [client] = await pair();
      if (state === "closed") await client.close();
      const reasons: unknown[] = [];
      const stream = new ReadableStream<string>({
        cancel: (reason) => void reasons.push(reason),
      });
      const sending = client.send(stream, { signal: AbortSignal.abort(REASON) });
      assert.equal(await rejection(sending), REASON);
      assert.deepEqual(reasons, [REASON]);
      client.terminate();
    });
  }
});
