/** Chromium as the client of an HTTP/2 server, which it connects to by RFC 8441. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { createSecureServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { it } from "../it.ts";
import { attachHttp2, type AttachHttp2Options, type Handler } from "../../lib/http2.ts";
import { certificates } from "../certificates.ts";
import { noServer } from "../http2_servers.ts";
import { withBrowser } from "./chromium.ts";
import { PEERS, unlessThere } from "./peers.ts";

/** The script of the page: opens sockets, and reports what happened to them. */
const SCRIPT = `
  function open(path, protocols, run) {
    return new Promise((resolve) => {
      const log = [];
      const socket = new WebSocket("wss://" + location.host + path, protocols);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => run(socket);
      socket.onmessage = ({ data }) => {
        log.push(typeof data === "string" ? data : sum(new Uint8Array(data)));
        run(socket, log.length);
      };
      socket.onclose = ({ code, reason, wasClean }) =>
        resolve({ log, protocol: socket.protocol, extensions: socket.extensions, code, reason, wasClean });
    });
  }
  const pattern = (length) => Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 255);
  const sum = (bytes) => bytes.length + ":" + bytes.reduce((a, b, i) => (a + b * (i % 251)) % 65521, 0);
  async function main() {
    const echo = open("/echo?a=b", ["other", "chat"], (socket, count = 0) => {
      if (count === 0) socket.send("é€😀");
      if (count === 1) socket.send(pattern(300000));
      if (count === 2) socket.close(3001, "done");
    });
    const several = Array.from({ length: 8 }, (_, i) => open("/echo", [], (socket, count = 0) => {
      if (count < 3) socket.send(i + "." + count); else socket.close();
    }));
    return {
      sum: sum(pattern(300000)),
      echo: await echo,
      several: await Promise.all(several),
      closes: await open("/closes", [], () => {}),
      terminates: await open("/terminates", [], () => {}),
      refused: await open("/refused", [], () => {}),
    };
  }
  main().catch(String).then((body) =>
    fetch("/result", { method: "POST", body: JSON.stringify(body) }));
`;

const handler: Handler = (ws) => {
  const { pathname } = new URL(ws.request.url);
  if (pathname === "/closes") return ws.close({ closeCode: 4002, reason: "bye" });
  if (pathname === "/terminates") return ws.terminate();
  return ws.readable.pipeTo(ws.writable);
};

/** Shows the page from an HTTP/2 server that `attachHttp2()` is used on, and returns its report. */
async function runPage(options: AttachHttp2Options): Promise<Record<string, unknown>> {
  const { leaf } = await certificates();
  const server = createSecureServer({
    ...leaf,
    allowHTTP1: false,
    settings: { enableConnectProtocol: true },
  });
  const sessions = new Set<ServerHttp2Stream["session"]>();
  server.on("session", (session) => sessions.add(session));
  server.on("sessionError", () => {});
  const attached = attachHttp2(server, options, handler);
  const result = new Promise<string>((resolve) => {
    server.on("stream", async (stream: ServerHttp2Stream, headers) => {
      stream.on("error", () => {});
      if (headers[":method"] === "CONNECT") return;
      if (headers[":method"] === "GET") {
        stream.respond({ ":status": 200, "content-type": "text/html; charset=utf-8" });
        stream.end(`<!doctype html><script>${SCRIPT}</script>`);
        return;
      }
      let body = "";
      for await (const chunk of stream.setEncoding("utf8")) body += chunk;
      stream.respond({ ":status": 204 });
      stream.end();
      resolve(body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  try {
    return JSON.parse(await withBrowser(url, result));
  } finally {
    await attached.shutdown();
    for (const session of sessions) session?.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

describe("chromium as peer over HTTP/2", () => {
  const skip = noServer ?? unlessThere(PEERS.chromium).skip;

  it(
    "chromium as peer over HTTP/2: messages, subprotocol, close codes, refusal, cut",
    { skip },
    async () => {
      const requests: string[] = [];
      const { sum, several, ...rest } = await runPage({
        protocols: ["chat"],
        origins: "same-origin",
        onRequest: (request) => {
          const { pathname, search } = new URL(request.url);
          requests.push(`${request.method} ${pathname}${search}`);
          if (pathname === "/refused") return new Response("no", { status: 403 });
        },
      });
      const none = { log: [], protocol: "", extensions: "", reason: "" };
      assert.deepEqual(rest, {
        echo: {
          log: ["é€😀", sum],
          protocol: "chat",
          extensions: "",
          code: 3001,
          reason: "done",
          wasClean: true,
        },
        closes: { ...none, code: 4002, reason: "bye", wasClean: true },
        terminates: { ...none, code: 1006, wasClean: false },
        refused: { ...none, code: 1006, wasClean: false },
      });
      const logs = (several as { log: string[]; code: number }[]).map(({ log }) => log);
      assert.deepEqual(
        logs,
        Array.from({ length: 8 }, (_, i) => [0, 1, 2].map((n) => `${i}.${n}`)),
      );
      assert.equal(requests[0], "GET /echo?a=b");
      assert.equal(requests.length, 12);
    },
  );
});
