import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Child } from "./programs.ts";
import { until } from "./support.ts";

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a script of the folder scenarios until it exits by itself. */
async function run(name: string): Promise<Result> {
  const child = new Child(fileURLToPath(new URL(`scenarios/${name}.ts`, import.meta.url)));
  try {
    let code: number | null | undefined;
    child.exited.then((exitCode) => code = exitCode);
    await until(() => code !== undefined);
    const warning = /^\(node:\d+\) ExperimentalWarning.*\n|^\(Use `node.*\n/gm;
    return { code: code!, stdout: child.stdout, stderr: child.stderr.replace(warning, "") };
  } finally {
    child.stop();
  }
}

describe("A process that uses WebSocketConnection", () => {
  const scenarios: [name: string, title: string][] = [
    ["ignored_promises", "has no unhandled rejection, be every promise ignored"],
    ["client_and_server", "ends by itself when client and server are closed"],
    ["timers", "ends by itself while keepalive and deadlines run"],
  ];
  for (const [name, title] of scenarios) {
    it(`A process that uses WebSocketConnection ${title}`, async () => {
      assert.deepEqual(await run(name), { code: 0, stdout: "done\n", stderr: "" });
    });
  }

  it("A transport that throws does not disturb other connections", async () => {
    const stdout = "arrives, 0 uncaught, 1006 because of Error: A fault of the transport\n";
    assert.deepEqual(await run("throwing_transport"), { code: 0, stdout, stderr: "" });
  });

  it("A socket of sluice/ws that throws does not disturb other connections", async () => {
    const stdout = "oops,written,written\n";
    assert.deepEqual(await run("throwing_socket"), { code: 0, stdout, stderr: "" });
  });

  it("A process that leaves a rejection unhandled is noticed", async () => {
    const { code, stderr } = await run("unhandled");
    assert.notEqual(code, 0);
    assert.match(stderr, /nobody handles this/);
  });
});
