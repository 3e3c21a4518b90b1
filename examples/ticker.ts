/** Sends prices to everybody. A client that is too slow misses old prices, never the newest one. */
import process from "node:process";
import { broadcast, serve } from "sluice";

let price = 100;

const server = await serve({ port: Number(process.env.PORT ?? 8080) }, async (ws) => {
  // A newcomer does not wait for the next price.
  void ws.send(JSON.stringify({ price }));
  // The server only sends: what a client says is dropped.
  ws.discard();
  await ws.closed;
});

const timer = setInterval(() => {
  price = Math.max(1, price + Math.round(Math.random() * 10) - 5);
  const { missed } = broadcast(server.connections, JSON.stringify({ price }), {
    maxBufferedAmount: 64 * 1024,
    slow: "drop-oldest",
  });
  if (missed > 0) console.log("missed by slow clients:", missed);
}, Number(process.env.INTERVAL ?? 100));

console.log("port:", server.port);
process.once("SIGTERM", async () => {
  clearInterval(timer);
  // 1012: the client may come back at once.
  await server.shutdown({ closeCode: 1012, reason: "restart", timeout: 5000 });
});
