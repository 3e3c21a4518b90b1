/** MQTT.js against aedes: QoS 0, 1 and 2, a last will, and a client that is cut off and returns. */
import { Buffer } from "node:buffer";
import { Aedes } from "aedes";
import mqtt from "mqtt";
import { countdown, deferred, listen, type Program, range } from "./program.ts";

export const run: Program = async (
  { WebSocketServer, createWebSocketStream },
  { load, measure },
) => {
  const broker = await Aedes.createBroker();
  const { server, port } = await listen();
  const protocols: string[] = [];
  const wss = new WebSocketServer({ server });
  wss.on("connection", (ws, request) => {
    protocols.push(ws.protocol);
    broker.handle(createWebSocketStream(ws), request);
  });
  const url = `ws://127.0.0.1:${port}`;
  const reader = await mqtt.connectAsync(url, { clientId: "reader" });
  const writer = await mqtt.connectAsync(url, {
    clientId: "writer",
    reconnectPeriod: 10,
    will: { topic: "will", payload: Buffer.from("gone"), qos: 1, retain: false },
  });
  await reader.subscribeAsync("#", { qos: 2 });
  const count = 100 * load;
  const received = countdown(3 * count);
  const will = deferred<string>();
  let bytes = 0;
  reader.on("message", (topic, payload) => {
    if (topic === "will") return will.resolve(payload.toString());
    bytes += payload.length;
    received.done();
  });
  await measure(3 * count, async () => {
    await Promise.all(
      range(count).flatMap((i) =>
        ([0, 1, 2] as const).map((qos) =>
          writer.publishAsync(`t/${qos}`, Buffer.alloc(i * 7, "m"), { qos })
        )
      ),
    );
    await received.promise;
  });
  const again = deferred();
  writer.once("connect", () => again.resolve());
  writer.stream.destroy();
  const last = await will.promise;
  await again.promise;
  await Promise.all([reader.endAsync(), writer.endAsync()]);
  wss.close();
  server.close();
  broker.close();
  return { bytes, last, protocols };
};
