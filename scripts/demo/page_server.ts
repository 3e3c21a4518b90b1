/** The server of `deno task demo --page`: serves the page, its messages and the server's statistics. */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { build, stop } from "esbuild";
import type { WebSocketConnection } from "../../mod.ts";
import { attach } from "../../lib/node.ts";

const SIZE = 16384;
/** Approximate number of bytes in the connection and the socket before a send waits. */
const CAPACITY = 65536;
const INTERVAL = 100;

/** A server of the demo page. */
export interface PageServer {
  /** The URL of the page. */
  url: string;
  /** Ends all connections and the server. */
  close(): Promise<void>;
}

/** The sender for one page, which has one connection for the messages and one for the statistics. */
class Feed {
  compress = false;
  sent = 0;
  longest = 0;
  /** Bytes per message on the wire, in the last interval that had messages. */
  #wire = 0;
  #since: number | undefined;
  #ws: WebSocketConnection | undefined;

  /** Sends as fast as the page reads. */
  async run(ws: WebSocketConnection): Promise<void> {
    this.#ws = ws;
    for (;;) {
      const message = messageAt(this.sent);
      this.#since = performance.now();
      await ws.send(message, { compress: this.compress });
      this.longest = Math.max(this.longest, performance.now() - this.#since);
      this.#since = undefined;
      this.sent++;
    }
  }

  /** The statistics that the page shows. */
  status(before: { bytes: number; messages: number }): Record<string, number> {
    const { bytesSent = 0, messagesSent = 0 } = this.#ws?.stats ?? {};
    const messages = messagesSent - before.messages;
    if (messages > 0) this.#wire = (bytesSent - before.bytes) / messages;
    Object.assign(before, { bytes: bytesSent, messages: messagesSent });
    const waited = this.#since === undefined ? 0 : performance.now() - this.#since;
    const outbox = this.#ws?.bufferedAmount ?? 0;
    const { sent, longest } = this;
    return { sent, outbox, capacity: CAPACITY, waited, longest, wire: this.#wire };
  }

  /** Sends the statistics to the page, and handles its requests. */
  async tell(ws: WebSocketConnection): Promise<void> {
    const before = { bytes: 0, messages: 0 };
    const timer = setInterval(() => {
      // A page that does not read gets fewer statistics.
      if (ws.bufferedAmount === 0) ws.send(JSON.stringify(this.status(before))).catch(() => {});
    }, INTERVAL);
    try {
      for await (const message of ws) {
        this.compress = JSON.parse(String(message)).compress === true;
      }
    } finally {
      clearInterval(timer);
    }
  }
}

/** Makes text that compresses like log lines. */
function messageAt(index: number): string {
  const line =
    `{"id":${index},"at":${Date.now()},"text":"Sluice: the gate that holds water back"}\n`;
  return line.repeat(SIZE / line.length);
}

/** Serves the page on 127.0.0.1. */
export async function servePage(port: number): Promise<PageServer> {
  const html = await readFile(new URL("page.html", import.meta.url));
  const script = await bundle();
  // Only one page at a time is supported. Another page gets the same statistics.
  const feed = new Feed();
  const server = createServer(({ url }, response) => {
    const isScript = url === "/page.js";
    response.statusCode = url === "/" || isScript ? 200 : 404;
    response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html; charset=utf-8");
    response.setHeader("Content-Security-Policy", "default-src 'self'; style-src 'unsafe-inline'");
    response.end(isScript ? script : response.statusCode === 200 ? html : "Not found");
  });
  const options = { origins: "same-origin", compression: true, onError: () => {} } as const;
  const attachments = [
    attach(server, { ...options, path: "/feed" }, (ws) => feed.run(ws)),
    attach(server, { ...options, path: "/control" }, (ws) => feed.tell(ws)),
  ];
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(port, "127.0.0.1", resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    async close() {
      await Promise.all(attachments.map((attachment) => attachment.shutdown({ timeout: 1000 })));
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function bundle(): Promise<Uint8Array> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("page.js", import.meta.url))],
    bundle: true,
    write: false,
    format: "esm",
    target: "es2022",
    platform: "browser",
  });
  await stop();
  return outputFiles[0].contents;
}
