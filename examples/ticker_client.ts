/** Follows the prices of ticker.ts, across restarts of the server and lost networks. */
import process from "node:process";
import { reconnect } from "sluice";

const url = process.argv[2] ?? "ws://127.0.0.1:8080";
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());

try {
  const options = {
    minDelay: 100,
    maxDelay: 10_000,
    signal: stop.signal,
    onRetry: ({ delay }: { delay: number }) => console.log(`again in ${Math.round(delay)} ms`),
  };
  for await (const ws of reconnect(url, options)) {
    console.log("connected");
    stop.signal.addEventListener("abort", () => void ws.close({ closeCode: 1000 }));
    try {
      for await (const message of ws) console.log(JSON.parse(String(message)).price);
    } catch (error) {
      // A lost connection is no reason to stop, a bug is.
      if (!ws.isOwnError(error)) throw error;
      console.log("ended:", (error as Error).message);
    }
  }
} catch (error) {
  if (!stop.signal.aborted) throw error;
  console.log("stopped");
}
