/** What needs ws in the same process. `tests/interop/matrix_test.ts` has the rest. */
import { it } from "node:test";
import assert from "node:assert/strict";
import { wsPair } from "./conformance/ws.ts";
import { ROLES } from "./support.ts";

for (const role of ROLES) {
  it(`ws as peer: both close at once (${role})`, async () => {
    const { ours, theirs, stop } = await wsPair(role);
    try {
      theirs.socket.close(4001);
      await ours.close({ closeCode: 4002 });
      assert.equal((await ours.closed).closeCode, 4001);
      assert.equal((await theirs.closed).closeCode, 4002);
      assert.deepEqual(theirs.errors, []);
    } finally {
      await stop();
    }
  });
}
