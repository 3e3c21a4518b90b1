/**
 * Sends much data to a TLS reader that sleeps and then reads all of it, from the client and from the
 * server: `tls.ts BYTES`. Prints a row of the table for each direction.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { sendToSleeper, type SleepReport, withTlsEnds } from "../../tests/sleeping_reader.ts";

const MIB = 1 << 20;
/** Time that the reader sleeps, in milliseconds. */
const SLEEP = 2000;
/** Maximum growth of memory since the start, for both ends and for uncollected garbage. */
const MOST_MEMORY = 256 * MIB;

const total = Number(process.argv[2]);
const show = (bytes: number) => `${(bytes / MIB).toFixed(1)} MiB`;

function print(sender: string, { stalled, buffered, rss, count }: SleepReport): void {
  console.log(JSON.stringify({
    sender,
    stalled: show(stalled),
    "bufferedAmount": show(buffered),
    "RSS before": show(rss.before),
    asleep: show(rss.asleep),
    peak: show(rss.peak),
    messages: String(count),
  }));
}

for (const sender of ["client", "server"]) {
  await withTlsEnds(async (client, server) => {
    const [from, to] = sender === "client" ? [client, server] : [server, client];
    const report = await sendToSleeper(from, to, total, SLEEP);
    print(sender, report);
    const grown = report.rss.peak - report.rss.before;
    assert.ok(grown <= MOST_MEMORY, `The process has grown by ${show(grown)}`);
  });
}
