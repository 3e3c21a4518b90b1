/**
 * The page on which a browser runs the rows: with the browser's own WebSocketStream, or with ours while the
 * browser's is hidden. The page reports each result to its server.
 */
import type { Env, Place } from "./kit.ts";
import { ROWS } from "./table.ts";

interface Settings {
  url: string;
  control: string;
  place: Place;
}

const DEADLINE = 120_000;

async function runAll({ url, control, place }: Settings): Promise<void> {
  const scope = globalThis as unknown as Partial<Env>;
  let { WebSocketStream, WebSocketError } = scope;
  if (place === "overWebSocket") {
    delete scope.WebSocketStream;
    delete scope.WebSocketError;
    ({ WebSocketStream, WebSocketError } = await import("./entry.ts") as unknown as Env);
  }
  const unhandled: unknown[] = [];
  addEventListener("unhandledrejection", ({ reason }) => unhandled.push(reason));
  const env = { WebSocketStream, WebSocketError, url, control } as Env;
  for (const row of ROWS) {
    if (row.except?.[place] !== undefined) continue;
    let problem = "";
    try {
      await Promise.race([
        row.run(env),
        new Promise((_, reject) => setTimeout(() => reject(new Error("It hangs")), DEADLINE)),
      ]);
      await new Promise((resolve) => setTimeout(resolve));
      if (unhandled.length > 0) problem = `unhandled: ${unhandled.splice(0).join(", ")}`;
    } catch (error) {
      problem = error instanceof Error ? `${error.message}\n${error.stack}` : String(error);
    }
    await post({ title: row.title, problem });
  }
  await post({ done: true });
}

async function post(report: object): Promise<void> {
  await fetch("/report", { method: "POST", body: JSON.stringify(report) });
}

const settings = JSON.parse(new URLSearchParams(location.search).get("settings")!) as Settings;
runAll(settings).catch((error) => post({ problem: String(error), done: true }));
