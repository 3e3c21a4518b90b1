/** The fuzz targets of topics: what clients send to a server, and what comes from an engine. */
import { Topics } from "../../lib/topics.ts";
import { MemoryEngine } from "../../lib/topics/memory.ts";
import { openEnvelope, sealEnvelope } from "../../lib/topics/envelope.ts";
import { pair } from "../../lib/testing.ts";
import { mutateBytes, type Random } from "./random.ts";
import type { Target } from "./target.ts";

const REQUESTS = [
  '{"subscribe":"a"}',
  '{"subscribe":"a","since":"e:0"}',
  '{"subscribe":"a/*"}',
  '{"unsubscribe":"a"}',
  '{"publish":"a","id":1}\ntext',
  '{"publish":"a","id":"x"}\n',
  "{}",
];

const encoder = new TextEncoder();

/** Sends nearly valid requests to `serve()`. Each gets one answer, and a subscription goes on. */
async function serveRequest(random: Random): Promise<string> {
  const topics = new Topics({ history: {} });
  const [client, server] = await pair();
  const serving = topics.serve(server, { maySubscribe: () => true, mayPublish: () => true });
  const valid = encoder.encode(random.pick(REQUESTS));
  const request = random.once(3) ? valid : mutateBytes(random, valid);
  const isText = random.once(2);
  const message = isText ? new TextDecoder().decode(request) : request;
  await client.send(message);
  await client.send('{"subscribe":"good"}');
  const answers: Record<string, unknown>[] = [];
  while (answers.at(-1)?.subscribed !== "good") {
    answers.push(JSON.parse(String(await client.receive()).split("\n")[0]));
  }
  await topics.publish("good", "x");
  while (answers.at(-1)?.topic !== "good") {
    answers.push(JSON.parse(String(await client.receive()).split("\n")[0]));
  }
  await client.close();
  await serving;
  await topics.close();
  const [first] = answers;
  const kind = ["refused", "subscribed", "unsubscribed", "published"].find((name) => name in first);
  if (kind === undefined) throw new Error(`No answer to ${JSON.stringify(message)}`);
  return kind;
}

/** Gives nearly valid envelopes to a subscription. Only whole ones are delivered. */
async function receiveEnvelope(random: Random): Promise<string> {
  const engine = new MemoryEngine();
  const errors: unknown[] = [];
  const topics = new Topics({
    backplane: engine.attach(),
    onError: (error) => void errors.push(error),
  });
  const reader = topics.messages("x").getReader();
  const isText = random.once(2);
  const sealed = sealEnvelope(isText ? "täxt" : random.bytes(5), "ABCDEFGHIJKL", random.below(1e9));
  // An engine may give the same as bytes or as text.
  const bytes = typeof sealed === "string" ? encoder.encode(sealed) : sealed;
  const changed = random.once(3) ? bytes : mutateBytes(random, bytes);
  const data = random.once(2) ? new TextDecoder().decode(changed) : changed;
  engine.publish("x", data);
  await topics.publish("x", "end");
  const first = (await reader.read()).value!;
  await topics.close();
  const isOpened = openEnvelope("x", { data, position: undefined }) !== undefined;
  const isDelivered = errors.length === 0;
  if (isOpened !== isDelivered) throw new Error("Delivered what is no envelope, or did not");
  if (!isDelivered && first.message !== "end") throw new Error("Lost the message after it");
  return isDelivered ? "delivered" : "refused";
}

export const TOPICS: Readonly<Record<string, Target>> = {
  "topics-requests": {
    what: "requests of clients of topics",
    inputs: 2000,
    run: serveRequest,
  },
  "topics-envelopes": {
    what: "messages of topics that come from an engine",
    inputs: 5000,
    run: receiveEnvelope,
  },
};
