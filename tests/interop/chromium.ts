/** Runs a headless browser while a test uses it. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { connect } from "../../mod.ts";
import { commandOf, PEERS } from "./peers.ts";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  // The certificates are made by the tests.
  "--ignore-certificate-errors",
  "--js-flags=--expose-gc",
];

/** A page of a browser, controlled by the Chrome DevTools Protocol. */
export interface DevTools {
  /** Calls a method of the protocol. */
  call(method: string, params?: object): Promise<Record<string, unknown>>;
  /** Evaluates an expression in the page. */
  evaluate<T>(expression: string): Promise<T>;
}

/** Shows a page until it has a result. */
export async function withBrowser<T>(page: string | URL, result: Promise<T>): Promise<T> {
  return await run(page, [], () => result);
}

/** Shows a page while a test uses it. */
export async function withDevTools<T>(
  page: string | URL,
  use: (tools: DevTools) => Promise<T>,
): Promise<T> {
  return await run(
    page,
    ["--remote-debugging-port=0", "--window-size=900,760"],
    async (profile) => {
      const port = await devToolsPort(profile);
      const pages: { type: string; webSocketDebuggerUrl: string }[] =
        await (await fetch(`http://127.0.0.1:${port}/json`)).json();
      const { webSocketDebuggerUrl } = pages.find(({ type }) => type === "page")!;
      const ws = await connect(webSocketDebuggerUrl, { maxMessageSize: 2 ** 26, pingInterval: 0 });
      let id = 0;
      const call = async (method: string, params: object = {}) => {
        const own = ++id;
        await ws.send(JSON.stringify({ id: own, method, params }));
        for (;;) {
          const answer = JSON.parse(String(await ws.receive()));
          if (answer.id !== own) continue;
          if (answer.error) throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
          return answer.result;
        }
      };
      const evaluate = async <T>(expression: string): Promise<T> => {
        const { result, exceptionDetails } = await call("Runtime.evaluate", {
          expression,
          returnByValue: true,
          awaitPromise: true,
        });
        if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
        return result.value;
      };
      try {
        return await use({ call, evaluate });
      } finally {
        ws.terminate();
      }
    },
  );
}

/** Waits until the browser has written its port to a file. */
async function devToolsPort(profile: string): Promise<string> {
  for (;;) {
    try {
      const [port] = (await readFile(join(profile, "DevToolsActivePort"), "utf8")).split("\n");
      if (port) return port;
    } catch {
      // The browser has not started yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function run<T>(
  page: string | URL,
  flags: readonly string[],
  use: (profile: string) => Promise<T>,
): Promise<T> {
  const profile = await mkdtemp(join(tmpdir(), "sluice-chromium-"));
  const [command, ...args] = commandOf(PEERS.chromium);
  const all = [...args, ...FLAGS, ...flags, `--user-data-dir=${profile}`, String(page)];
  const browser = spawn(command, all, {
    // The helper processes of the browser are ended with it.
    detached: true,
    stdio: "ignore",
  });
  const ended = new Promise((resolve) => browser.once("exit", resolve));
  const early = ended.then((): never => {
    throw new Error("The browser has ended by itself");
  });
  try {
    return await Promise.race([use(profile), early]);
  } finally {
    early.catch(() => {});
    if (browser.exitCode === null) process.kill(-browser.pid!, "SIGKILL");
    await ended;
    await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}
