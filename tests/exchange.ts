/**
 * A conversation of a client and a server with messages, fragments, pings and a Close frame. The tests of
 * faults cut it at each of its bytes, and check that everything settles.
 */
import assert from "node:assert/strict";
import { HandshakeError, type Message, type WebSocketConnection, WebSocketError } from "../mod.ts";
import { pattern } from "./bytes.ts";

/** How the connections are read and written. */
export type Way = "messages" | "streams";

/** The result at one end. */
export interface EndReport {
  /** "closed" and the code, "failed" and the code, or the code of the HandshakeError. */
  end: string;
  /** The messages read, in order. */
  received: Message[];
  /** The number of promises that have settled. */
  settled: number;
}

/** The messages that the client receives: the echo of its own messages, and one from the server. */
export const CONVERSATION: readonly Message[] = [
  "welcome",
  "one",
  "two, three, four",
  pattern(200),
  "gr\u00fc\u00df \u{1f600}",
];

/** Runs the conversation. Resolves when everything has settled at both ends. */
export async function exchange(
  client: Promise<WebSocketConnection>,
  server: Promise<WebSocketConnection>,
  way: Way,
): Promise<[client: EndReport, server: EndReport]> {
  return await Promise.all([
    talk(client, (ws, send, note) => runClient(ws, send, note), way),
    talk(server, (ws, send, note) => runServer(ws, send, note), way),
  ]);
}

type Send = (message: Message | Message[]) => Promise<void>;
type Note = (promise: Promise<unknown>) => void;
type Side = (ws: WebSocketConnection, send: Send, note: Note) => (message: Message) => void;

function runClient(ws: WebSocketConnection, send: Send, note: Note): (message: Message) => void {
  note(send("one"));
  note(ws.ping("ping"));
  note(send(["two", ", three", "", ", four"]));
  note(send(CONVERSATION[3]));
  note(ws.pong());
  note(send(CONVERSATION[4]));
  let count = 0;
  return () => {
    if (++count === CONVERSATION.length) note(ws.close({ closeCode: 1000, reason: "done" }));
  };
}

function runServer(ws: WebSocketConnection, send: Send, note: Note): (message: Message) => void {
  note(send(["wel", "come"]));
  note(ws.ping("pong"));
  return (message) => note(send(message));
}

async function talk(
  opening: Promise<WebSocketConnection>,
  side: Side,
  way: Way,
): Promise<EndReport> {
  const received: Message[] = [];
  let ws: WebSocketConnection;
  try {
    ws = await opening;
  } catch (error) {
    assert.ok(error instanceof HandshakeError, String(error));
    return { end: error.code, received, settled: 1 };
  }
  const noted: Promise<unknown>[] = [];
  const writer = way === "streams" ? ws.writable.getWriter() : undefined;
  const send: Send = (message) =>
    writer === undefined || Array.isArray(message) ? ws.send(message) : writer.write(message);
  const onMessage = side(ws, send, (promise) => void noted.push(promise));
  const reading = (async () => {
    const messages = way === "streams" ? ws.readable : ws;
    for await (const message of messages as AsyncIterable<Message>) {
      received.push(message);
      onMessage(message);
    }
  })();
  if (writer !== undefined) noted.push(writer.closed);
  const [closed, read] = await Promise.allSettled([ws.closed, reading]);
  const results = await Promise.allSettled(noted);
  checkSettled(ws, closed, read, results);
  const end = closed.status === "fulfilled"
    ? `closed ${closed.value.closeCode}`
    : `failed ${closed.reason.closeCode}`;
  return { end, received, settled: results.length + 2 };
}

function checkSettled(
  ws: WebSocketConnection,
  closed: PromiseSettledResult<unknown>,
  read: PromiseSettledResult<void>,
  results: PromiseSettledResult<unknown>[],
): void {
  assert.equal(ws.state, "closed");
  // The reader sees the same end as `closed`.
  assert.equal(read.status, closed.status);
  if (closed.status === "rejected") {
    assert.ok(closed.reason instanceof WebSocketError, String(closed.reason));
    assert.equal((read as PromiseRejectedResult).reason, closed.reason);
  }
  for (const result of results) {
    if (result.status === "fulfilled") continue;
    assert.match(result.reason.name, /^(WebSocketError|InvalidStateError)$/, String(result.reason));
  }
}
