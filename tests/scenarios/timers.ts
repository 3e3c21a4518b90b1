/** Ends by itself while a connection is open: neither its timers nor memory keep the process running. */
import { connect } from "../../mod.ts";
import { pair, transportPair } from "../../lib/testing.ts";

const [client] = await pair({
  client: { pingInterval: 60_000, pingTimeout: 60_000, closeTimeout: 60_000 },
  server: { pingInterval: 100_000 },
});
await client.send("a");

// A handshake without an answer, and a Close frame without an answer.
const [near] = transportPair();
connect("ws://a/", { transport: near, openTimeout: 60_000 }).catch(() => {});
const [waiting] = await pair({ client: { closeTimeout: 60_000 }, delay: 1 });
waiting.ping().catch(() => {});
console.log("done");
