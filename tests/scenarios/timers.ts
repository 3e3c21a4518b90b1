/** Ends by itself though a connection is open: its timers hold nothing, and memory neither. */
import { connect } from "../../mod.ts";
import { pair, transportPair } from "../../lib/testing.ts";

const [client] = await pair({
  client: { pingInterval: 60_000, pingTimeout: 60_000, closeTimeout: 60_000 },
  server: { pingInterval: 100_000 },
});
await client.send("a");

// A handshake that nobody answers, and a Close that nobody answers.
const [near] = transportPair();
connect("ws://a/", { transport: near, openTimeout: 60_000 }).catch(() => {});
const [waiting] = await pair({ client: { closeTimeout: 60_000 }, delay: 1 });
waiting.ping().catch(() => {});
console.log("done");
