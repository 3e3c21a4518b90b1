/** The WebSocket adapter of tRPC: calls, a subscription, an error, and a server that cuts its clients. */
import { createTRPCClient, createWSClient, wsLink } from "@trpc/client";
import { initTRPC, TRPCError } from "@trpc/server";
import { applyWSSHandler } from "@trpc/server/adapters/ws";
import { deferred, listen, type Program, range } from "./program.ts";

const t = initTRPC.create();

const router = t.router({
  square: t.procedure.input((value) => value as number).query(({ input }) => input * input),
  fail: t.procedure.query(() => {
    throw new TRPCError({ code: "FORBIDDEN", message: "no" });
  }),
  count: t.procedure.input((value) => value as number).subscription(async function* ({ input }) {
    for (const i of range(input)) yield i;
  }),
});

export const run: Program = async ({ WebSocket, WebSocketServer }, { load, measure }) => {
  const { server, port } = await listen();
  const wss = new WebSocketServer({ server });
  const handler = applyWSSHandler({ wss: wss as never, router });
  const opened: number[] = [];
  const reopened = deferred();
  const connection = createWSClient({
    url: `ws://127.0.0.1:${port}`,
    WebSocket: WebSocket as never,
    retryDelayMs: () => 1,
    onOpen: () => opened.push(opened.length) > 1 && reopened.resolve(),
  });
  const client = createTRPCClient<typeof router>({ links: [wsLink({ client: connection })] });
  const count = 300 * load;
  let sum = 0;
  await measure(2 * count, async () => {
    const squares = await Promise.all(range(count).map((i) => client.square.query(i)));
    sum = squares.reduce((total, one) => total + one, 0);
    await new Promise<void>((resolve, reject) =>
      client.count.subscribe(count, {
        onData: (i) => sum += i as number,
        onComplete: resolve,
        onError: reject,
      })
    );
  });
  const failure = await client.fail.query().catch((error: Error) => error.message);
  for (const ws of wss.clients) ws.terminate();
  await reopened.promise;
  const after = await client.square.query(12);
  await connection.close();
  handler.broadcastReconnectNotification();
  wss.close();
  server.close();
  return { sum, failure, after, opened: opened.length };
};
