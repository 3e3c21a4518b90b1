/** A server that is reached through http-proxy, which also loses its target. */
import { Buffer } from "node:buffer";
import httpProxy from "http-proxy";
import { countdown, deferred, listen, type Program, range } from "./program.ts";

export const run: Program = async ({ WebSocket, WebSocketServer }, { load, measure }) => {
  const { server: target, port: targetPort } = await listen();
  const wss = new WebSocketServer({ server: target, perMessageDeflate: true });
  const forwarded: unknown[] = [];
  wss.on("connection", (ws, request) => {
    forwarded.push(request.headers["x-forwarded-proto"]);
    ws.on("message", (data, isBinary) => ws.send(data, { binary: isBinary }));
  });
  const proxy = httpProxy.createProxyServer({
    target: `http://127.0.0.1:${targetPort}`,
    ws: true,
    xfwd: true,
  });
  proxy.on("error", (...[, , socket]: [Error, unknown, { destroy(): void }]) => socket.destroy());
  const { server, port } = await listen((request, response) => proxy.web(request, response));
  server.on("upgrade", (request, socket, head) => proxy.ws(request, socket, head));
  const client = new WebSocket(`ws://127.0.0.1:${port}/`, { perMessageDeflate: { threshold: 0 } });
  const opened = deferred();
  client.on("open", opened.resolve);
  await opened.promise;
  const count = 200 * load;
  const echoed = countdown(count);
  let bytes = 0;
  client.on("message", (data) => {
    bytes += (data as Buffer).length;
    echoed.done();
  });
  await measure(count, async () => {
    for (const i of range(count)) client.send(Buffer.alloc(i * 50, i));
    await echoed.promise;
  });
  const ended = deferred<number>();
  client.on("close", ended.resolve);
  for (const ws of wss.clients) ws.terminate();
  const code = await ended.promise;
  target.close();
  const failed = deferred<string>();
  const late = new WebSocket(`ws://127.0.0.1:${port}/`);
  late.on("error", (error) => failed.resolve((error as { code?: string }).code ?? error.message));
  const error = await failed.promise;
  server.close();
  proxy.close();
  return { bytes, code, error, extensions: client.extensions, forwarded };
};
