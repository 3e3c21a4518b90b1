/** Many waits for one AbortSignal share its listener. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { onAbort } from "../lib/abortable.ts";
import { pair } from "../lib/testing.ts";

/** A signal that counts its listeners. */
function countingSignal() {
  const controller = new AbortController();
  const { signal } = controller;
  const counts = { now: 0, most: 0 };
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    counts.most = Math.max(counts.most, ++counts.now);
    addEventListener.apply(signal, args);
  };
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    counts.now--;
    removeEventListener.apply(signal, args);
  };
  return { controller, signal, counts };
}

describe("Many waits for one AbortSignal", () => {
  it("share one listener, and remove it with the last of them", () => {
    const { signal, counts } = countingSignal();
    const stops = Array.from({ length: 1000 }, () => onAbort(signal, () => {}));
    assert.deepEqual(counts, { now: 1, most: 1 });
    for (const stop of stops) {
      assert.equal(counts.now, 1);
      stop();
      stop();
    }
    assert.deepEqual(counts, { now: 0, most: 1 });
  });

  it("calls each listener once, in order, and none that was removed", () => {
    const { controller, signal } = countingSignal();
    const called: number[] = [];
    const stops = Array.from({ length: 5 }, (_, i) =>
      onAbort(signal, (reason) => {
        called.push(i);
        assert.equal(reason, "over");
        stops[3]();
      }));
    stops[1]();
    controller.abort("over");
    controller.abort("again");
    assert.deepEqual(called, [0, 2, 4]);
  });

  it("are called at once if the signal is aborted, also while it is", () => {
    const { controller, signal } = countingSignal();
    const called: string[] = [];
    onAbort(signal, () => {
      called.push("first");
      onAbort(signal, () => called.push("within"));
    });
    controller.abort();
    onAbort(signal, () => called.push("later"));
    assert.deepEqual(called, ["first", "within", "later"]);
  });

  it("start again after the last has stopped", () => {
    const { controller, signal, counts } = countingSignal();
    onAbort(signal, () => {})();
    let isCalled = false;
    onAbort(signal, () => isCalled = true);
    assert.deepEqual(counts, { now: 1, most: 1 });
    controller.abort();
    assert.ok(isCalled);
  });

  it("of receive() on many connections too", async () => {
    const { controller, signal, counts } = countingSignal();
    const pairs = await Promise.all(Array.from({ length: 20 }, () => pair()));
    const received = pairs.map(([client]) => client.receive({ signal }));
    assert.deepEqual(counts, { now: 1, most: 1 });
    controller.abort(new Error("enough"));
    for (const message of received) await assert.rejects(message, { message: "enough" });
    for (const [client, server] of pairs) {
      client.terminate();
      server.terminate();
    }
  });
});
