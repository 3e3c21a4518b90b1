/**
 * Puts a server under load and shuts it down under load: `load.ts - SECONDS [IDLE ACTIVE]`. The server is a
 * separate process, so that client and server each have as many descriptors as the system allows. If that is
 * too few, the numbers of connections are lowered, and the row states the lowered numbers.
 */
import assert from "node:assert/strict";
import { execSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { type Growth, type LoadServer, type LoadStatus, underLoad } from "../../tests/load.ts";
import { Child } from "../../tests/programs.ts";
import { collectGarbage } from "../../tests/garbage.ts";

const [, , , seconds, most = "10000", active = "1000"] = process.argv;
const MIB = 1 << 20;
const SPARE = 500;
/** Growth of memory that is allowed once its size is stable: memory that the platform returns later. */
const SLACK = 64 * MIB;

const limit = Number(execSync("ulimit -n", { shell: "/bin/sh" })) || Infinity;
const idle = Math.min(Number(most), limit - SPARE - Number(active));

async function withServer(use: (server: LoadServer) => Promise<void>): Promise<void> {
  const path = fileURLToPath(new URL("../../tests/scenarios/load_server.ts", import.meta.url));
  const child = new Child(path);
  try {
    const [, port, control] = await child.printed(/ports (\d+) (\d+)/);
    const ask = async (what: string) => {
      const response = await fetch(`http://127.0.0.1:${control}/${what}`);
      const text = await response.text();
      assert.equal(response.status, 200, text);
      return JSON.parse(text);
    };
    const status = (): Promise<LoadStatus> => ask("status");
    await use({ port: Number(port), status, shutdown: () => ask("shutdown") });
    assert.equal(await child.exited, 0, child.stderr);
    assert.equal(child.stderr, "");
  } finally {
    child.stop("SIGKILL");
    await child.exited;
  }
}

const show = (bytes: number) => `${(bytes / MIB).toFixed(0)} MiB`;

function flat(who: string, { before, settled, after }: Growth): string {
  const sizes = [before, settled, after].map(show).join(", ");
  assert.ok(after <= settled * 1.25 + SLACK, `The memory of the ${who} grows: ${sizes}`);
  return sizes;
}

await withServer(async (server) => {
  const load = { idle, active: Number(active), seconds: Number(seconds) };
  const report = await underLoad({ ...load, collect: collectGarbage }, server);
  console.log(JSON.stringify({
    connections: `${report.connections}`,
    messages: `${report.messages}`,
    lost: "0",
    "bad handshakes": `${report.bad}`,
    "good ones": `${report.good}`,
    "waited for the sleeper": `${report.waited} B`,
    "RSS of the server, at first, settled, at last": flat("server", report.rss.server),
    "of the clients": flat("clients", report.rss.clients),
  }));
});
