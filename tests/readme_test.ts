import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readSource, withPrograms } from "./programs.ts";

/** The programs in the README, by the name in their first line. */
async function programs(): Promise<Map<string, string>> {
  const blocks = (await readSource("README.md")).matchAll(/```[jt]s\n(\/\/ (\S+)\n[^]*?)```/g);
  return new Map([...blocks].map(([, program, name]) => [name, program]));
}

describe("README", () => {
  it("README has a server, a client of each kind, and they understand each other", async () => {
    const found = await programs();
    assert.deepEqual([...found.keys()], ["server.ts", "client.ts", "stream.ts"]);
    await withPrograms(async (start) => {
      const server = await start("server.ts", found.get("server.ts")!.replace("8080", "0"));
      const [, port] = await server.printed(/listening on .*:(\d+)/);
      const expected = {
        "client.ts": /^Hello Uint8Array\(3\) \[ 1, 2, 3 \]\n$/,
        "stream.ts": /^Hello\n$/,
      };
      for (const [name, output] of Object.entries(expected)) {
        const client = await start(name, found.get(name)!.replace("8080", port));
        assert.equal(await client.exited, 0, client.stderr);
        assert.match(client.stdout, output);
      }
    });
  });
});
