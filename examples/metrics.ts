/** What a server has done so far, at /metrics as Prometheus reads it. */
import process from "node:process";
import { serve, type ServerStats } from "sluice";

function metrics({ opened, ended, refused, refusedByStatus, ...totals }: ServerStats): string {
  const lines = [`websocket_open ${opened - ended}`, `websocket_opened_total ${opened}`];
  for (const [code, count] of Object.entries(refused)) {
    lines.push(`websocket_refused_total{code="${code}"} ${count}`);
  }
  for (const [status, count] of Object.entries(refusedByStatus)) {
    lines.push(`websocket_refused_by_status_total{status="${status}"} ${count}`);
  }
  for (const [name, count] of Object.entries(totals)) {
    const words = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    lines.push(`websocket_${words}_total ${count}`);
  }
  return `${lines.join("\n")}\n`;
}

const server = await serve({
  port: 8080,
  onRequest({ url }) {
    if (new URL(url).pathname !== "/metrics") return;
    return new Response(metrics(server.stats), { headers: { "Content-Type": "text/plain" } });
  },
}, (ws) => ws.readable.pipeTo(ws.writable));

console.log("port:", server.port);
process.once("SIGTERM", () => server.shutdown());
