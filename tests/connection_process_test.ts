import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { type ChildResult, runScript } from "./child.ts";

function scenario(name: string): Promise<ChildResult> {
  return runScript(fileURLToPath(new URL(`scenarios/${name}.ts`, import.meta.url)));
}

describe("A process that uses WebSocketConnection", () => {
  const scenarios: [name: string, title: string][] = [
    ["ignored_promises", "has no unhandled rejection, be every promise ignored"],
    ["client_and_server", "ends by itself when client and server are closed"],
    ["timers", "ends by itself while keepalive and deadlines run"],
  ];
  for (const [name, title] of scenarios) {
    it(`A process that uses WebSocketConnection ${title}`, async () => {
      assert.deepEqual(await scenario(name), {
        code: 0,
        hung: false,
        stdout: "done\n",
        stderr: "",
      });
    });
  }

  it("A process that leaves a rejection unhandled is noticed", async () => {
    const { code, stderr } = await scenario("unhandled");
    assert.notEqual(code, 0);
    assert.match(stderr, /nobody handles this/);
  });
});
