/**
 * A server of JSON-RPC 2.0 as a chain of streams: texts to calls, calls to answers, answers to texts.
 * It answers one call after the other, and reads no more calls while a client does not read answers.
 */
import process from "node:process";
import { type Message, serve } from "sluice";

/** Refuses a call with an error code of the protocol, or one of the application. */
class RpcError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

type Methods = Record<string, (params: unknown) => unknown>;

interface Answer {
  id: unknown;
  result?: unknown;
  error?: { code: number; message: string };
}

function parse(message: Message): Record<string, unknown> {
  let call: unknown;
  try {
    call = JSON.parse(typeof message === "string" ? message : "");
  } catch {
    throw new RpcError(-32700, "Parse error");
  }
  const { jsonrpc, method } = Object(call);
  if (jsonrpc !== "2.0" || typeof method !== "string") {
    throw new RpcError(-32600, "Invalid Request");
  }
  return call as Record<string, unknown>;
}

function failure(id: unknown, error: unknown): Answer {
  if (error instanceof RpcError) return { id, error: { code: error.code, message: error.message } };
  // The client learns nothing about the server.
  console.error(error);
  return { id, error: { code: -32603, message: "Internal error" } };
}

/** Turns calls into answers. A call without an id, a notification, has none. */
function calls(methods: Methods): TransformStream<Message, Answer> {
  return new TransformStream({
    async transform(message, controller) {
      let id: unknown = null;
      try {
        const call = parse(message);
        id = call.id;
        const method = Object.hasOwn(methods, call.method as string) &&
          methods[call.method as string];
        if (!method) throw new RpcError(-32601, "Method not found");
        const result = await method(call.params) ?? null;
        if (id !== undefined) controller.enqueue({ id, result });
      } catch (error) {
        const answer = failure(id, error);
        if (id !== undefined) controller.enqueue(answer);
      }
    },
  });
}

function texts(): TransformStream<Answer, string> {
  return new TransformStream({
    transform: (answer, controller) =>
      controller.enqueue(JSON.stringify({ jsonrpc: "2.0", ...answer })),
  });
}

const methods: Methods = {
  add(params) {
    if (!Array.isArray(params) || params.some((value) => typeof value !== "number")) {
      throw new RpcError(-32602, "Invalid params");
    }
    return params.reduce((sum, value) => sum + value, 0);
  },
  async sleep(milliseconds) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(Number(milliseconds), 1000)));
  },
};

const server = await serve(
  { port: 8080, protocols: ["jsonrpc-2.0"], maxMessageSize: 64 * 1024 },
  (ws) => ws.readable.pipeThrough(calls(methods)).pipeThrough(texts()).pipeTo(ws.writable),
);

console.log("port:", server.port);
process.once("SIGTERM", () => server.shutdown());
