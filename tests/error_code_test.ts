import { describe } from "node:test";
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { inspect } from "node:util";
import {
  connect,
  credentialsOf,
  errorCodeOf,
  HandshakeError,
  serve,
  WebSocketError,
} from "../mod.ts";
import {
  encodeFrame,
  FrameDecoder,
  LocalProtocolError,
  Protocol,
  RemoteProtocolError,
} from "../lib/core/mod.ts";
import { upgradeHttp2 } from "../lib/http2.ts";
import { upgrade } from "../lib/node.ts";
import { pair } from "../lib/testing.ts";
import type { WebSocketConnection } from "../mod.ts";
import { it, notApplicable } from "./it.ts";
import { rejection } from "./support.ts";

const ROOT = new URL("../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, ROOT), "utf8");
const SOURCE = read("lib/core/error_code.ts");
const skip = process.versions.bun === undefined
  ? false
  : notApplicable("JavaScriptCore finds no frames of functions that wait for such a promise");

/** The members of a union type of codes, read from the source. */
function codesOf(type: string): string[] {
  const [, union] = SOURCE.match(new RegExp(`export type ${type} =([^;]+);`))!;
  return Array.from(union.matchAll(/^ {2}\| "([a-z-]+)"/gm), ([, code]) => code);
}

const calls = codesOf("CallErrorCode");
const handshakes = codesOf("HandshakeErrorCode");

function sources(): { path: string; text: string }[] {
  const names = readdirSync(new URL("lib/", ROOT), { recursive: true }) as string[];
  const paths = names.filter((name) => name.endsWith(".ts")).map((name) => `lib/${name}`);
  return paths.map((path) => ({ path, text: read(path).replace(/^\s*(?:\/\/|\*).*$/gm, "") }));
}

/** The stack of an error, as each runtime prints it. */
function stackOf(error: unknown): string {
  return (error as Error).stack ?? "";
}

async function waitForMessage(ws: WebSocketConnection): Promise<void> {
  await ws.receive();
}

async function readAll(ws: WebSocketConnection): Promise<void> {
  for await (const _ of ws);
}

async function sendAll(
  ws: WebSocketConnection,
  message: Parameters<WebSocketConnection["send"]>[0],
): Promise<void> {
  await ws.send(message);
}

async function sendOnce(ws: WebSocketConnection): Promise<void> {
  await ws.send("a");
}

/** Awaits only the function, so that the stack contains its frames. */
async function sendingError(
  ws: WebSocketConnection,
  message: Parameters<WebSocketConnection["send"]>[0],
): Promise<unknown> {
  try {
    await sendAll(ws, message);
  } catch (error) {
    return error;
  }
}

async function* endless(): AsyncIterable<string> {
  yield "a";
  await new Promise(() => {});
}

describe("The codes of errors", () => {
  it("The lists in the source and in docs/reference/errors.md are the same", () => {
    const page = read("docs/reference/errors.md");
    const listed = Array.from(page.matchAll(/^\| `"([a-z-]+)"`/gm), ([, code]) => code);
    assert.deepEqual(listed.sort(), [...calls, ...handshakes].sort());
    assert.ok(calls.length >= 20 && handshakes.length >= 30);
  });

  it("Each code of a call is used, and every error of lib/ is made with a code", () => {
    // The errors of lib/ws/ are those of the package ws, with its codes or without one.
    const used = sources().filter(({ path }) =>
      path !== "lib/core/error_code.ts" && !path.startsWith("lib/ws/")
    );
    for (const code of calls) {
      const isDefault = ["wrong-type", "wrong-value"].includes(code);
      assert.ok(isDefault || used.some(({ text }) => text.includes(`"${code}"`)), code);
    }
    const bare = /new (?:\w*Error|DOMException)\(/g;
    const classes = [
      "HandshakeError",
      "LocalProtocolError",
      "RemoteProtocolError",
      "WebSocketError",
      // The command line prints this error.
      "UsageError",
    ];
    for (const { path, text } of used) {
      const found = [...text.matchAll(bare)].map(([made]) => made.slice(4, -1));
      assert.deepEqual(found.filter((name) => !classes.includes(name)), [], path);
      if (path !== "lib/core/error.ts") assert.ok(!found.includes("WebSocketError"), path);
    }
  });

  it("Errors of arguments, options and members have a code", async () => {
    const [ws] = await pair();
    const locked = new ReadableStream<string>();
    locked.getReader();
    const wrong: [code: string, run: () => unknown][] = [
      ["wrong-type", () => ws.close({ closeCode: "1000" as never })],
      ["wrong-value", () => ws.close({ closeCode: 1005, reason: "a" })],
      ["unknown-option", () => connect("ws://localhost", { headrs: {} } as never)],
      ["invalid-url", () => connect("ftp://localhost")],
      ["wrong-value", () => connect("ws://localhost", { openTimeout: -1 })],
      ["wrong-value", () => connect("ws://localhost", { protocols: ["a b"] })],
      ["wrong-type", () => ws.send(1 as never)],
      ["no-such-member", () => Object.assign(ws, { onmessage: () => {} })],
      ["unknown-option", () => serve({ prot: 0 } as never, () => {})],
      ["wrong-type", () => ws.send(locked)],
      ["wrong-type", () => ws.writable.getWriter().write(Symbol("a") as never)],
      ["wrong-type", () => upgrade(undefined as never, undefined as never, undefined as never)],
      ["wrong-type", () => upgrade({ rawHeaders: [] } as never, {} as never, undefined as never)],
      ["wrong-type", () => upgradeHttp2(undefined as never, {})],
      ["wrong-type", () => upgradeHttp2({ respond() {} } as never, undefined as never)],
      ["wrong-type", () => credentialsOf(undefined as never)],
      ["wrong-type", () => credentialsOf({ headers: {} } as never)],
      ["wrong-type", () => encodeFrame(undefined as never)],
      ["wrong-type", () => encodeFrame({ opcode: 1, payload: "a" } as never)],
      ["wrong-value", () => encodeFrame({ opcode: 3, payload: new Uint8Array(0) } as never)],
      ["wrong-type", () => new FrameDecoder(undefined as never)],
      ["wrong-type", () => new FrameDecoder({ role: "peer" } as never)],
      ["wrong-type", () => new FrameDecoder({ role: "client" }).push(new ArrayBuffer(2) as never)],
      ["wrong-type", () => new FrameDecoder({ role: "client" }).push(new Uint16Array(2) as never)],
      ["wrong-type", () => new Protocol("client").receive("ab" as never)],
      ["wrong-type", () => new Protocol("client").send(undefined as never)],
      ["wrong-type", () => new Protocol("client").send("a" as never)],
      ["wrong-type", () => new Protocol("client").send({ type: "text", data: 1 } as never)],
      ["wrong-type", () => new Protocol("client").send({ type: "ping", payload: "a" } as never)],
      ["wrong-value", () => new Protocol("client").send({ type: "close", closeCode: 5 })],
      [
        "wrong-type",
        () => new Protocol("client").send({ type: "close", closeCode: "a" } as never),
      ],
    ];
    for (const [code, run] of wrong) {
      const error = await rejection(Promise.resolve().then(run));
      assert.equal(errorCodeOf(error), code, String(error));
      if (!(error instanceof DOMException)) {
        assert.equal((error as { code?: unknown }).code, code);
      }
    }
    ws.terminate();
  });

  it("A DOMException has its number as code, and the code of the library as errorCode", async () => {
    const [ws, peer] = await pair();
    const closed = rejection(ws.receive());
    peer.close({ closeCode: 4000 });
    const lost = await closed as WebSocketError;
    assert.deepEqual([lost.code, lost.errorCode, errorCodeOf(lost)], [0, "closed", "closed"]);
    const late = await rejection(ws.send("a")) as DOMException & { errorCode: string };
    assert.deepEqual([late.code, late.errorCode, errorCodeOf(late)], [11, "not-open", "not-open"]);
  });

  it("The end of a connection tells its reason by a code", async () => {
    const ends: [
      code: string,
      end: (ws: WebSocketConnection, peer: WebSocketConnection) => void,
    ][] = [
      ["terminated", (ws) => ws.terminate()],
      ["connection-lost", (_, peer) => peer.terminate()],
      ["too-big", (_, peer) => void peer.send("x".repeat(11))],
    ];
    for (const [code, end] of ends) {
      const [ws, peer] = await pair({ client: { maxMessageSize: 10 } });
      const lost = rejection(ws.closed);
      end(ws, peer);
      assert.equal(errorCodeOf(await lost), code);
      assert.equal(errorCodeOf(await rejection(ws.receive())), code);
      peer.terminate();
    }
  });

  it("Calls at the wrong moment have a code", async () => {
    const [ws] = await pair();
    const waiting = rejection(ws.receive());
    assert.equal(errorCodeOf(await rejection(ws.receive())), "busy");
    assert.throws(() => ws.readable, (error) => errorCodeOf(error) === "busy");
    const sending = rejection(ws.send(endless()));
    await new Promise((resolve) => setTimeout(resolve, 10));
    ws.close();
    assert.equal(errorCodeOf(await sending), "cut-short");
    await waiting;
    const [other] = await pair();
    other.discard();
    const message = "Cannot read by readable: the connection is read by discard()";
    assert.throws(() => other.readable, { message });
    assert.throws(() => other.readable, (error) => errorCodeOf(error) === "reading-mode");
    other.terminate();
  });

  it("The errors of the core have a code", () => {
    const protocol = new Protocol("client");
    protocol.send({ type: "close", closeCode: 1000 });
    assert.throws(() => protocol.send({ type: "text", data: "a" }), { code: "wrong-state" });
    assert.equal(errorCodeOf(new LocalProtocolError("a")), "wrong-state");
    const codes = [1002, 1006, 1007, 1008, 1009].map((code) => new RemoteProtocolError("a", code));
    assert.deepEqual(codes.map(({ code }) => code), [
      "protocol-violation",
      "connection-lost",
      "invalid-data",
      "flood",
      "too-big",
    ]);
    const cause = new HandshakeError("a", "key");
    assert.equal(errorCodeOf(new RemoteProtocolError("a", 1006, { cause })), "key");
    assert.equal(errorCodeOf(cause), "key");
  });

  it("errorCodeOf knows no code of other values", () => {
    for (const value of [undefined, null, 1, "key", { code: "key" }, new TypeError("a")]) {
      assert.equal(errorCodeOf(value), undefined);
    }
    assert.equal(errorCodeOf(new WebSocketError("a", { closeCode: 3000 })), undefined);
  });

  it("The messages name the option", async () => {
    const [ws, peer] = await pair({ client: { maxMessageSize: 10 } });
    peer.send("x".repeat(11));
    assert.match((await rejection<Error>(ws.receive())).message, /maxMessageSize/);
    peer.terminate();
    // The timers of the library do not keep a process alive.
    const alive = setInterval(() => {}, 1000);
    const open = rejection<Error>(
      connect("ws://localhost:1/?token=secret", {
        openTimeout: 1,
        transport: { readable: new ReadableStream(), writable: new WritableStream() },
      }),
    );
    const { message } = await open;
    clearInterval(alive);
    assert.match(message, /openTimeout/);
    assert.doesNotMatch(message, /secret/);
    const refused = rejection<Error>(connect("ws://user:pass@127.0.0.1:9/path?token=secret"));
    assert.match((await refused).message, /\(ws:\/\/127\.0\.0\.1:9\/path\)$/);
    // The message of the cause repeats the address.
    assert.match(
      (await refused).message,
      /^Cannot connect to 127\.0\.0\.1 port 9: ECONNREFUSED \(/,
    );
  });
});

describe("The stacks of errors", () => {
  it("A call after the end has the caller in its stack", async () => {
    const [ws] = await pair();
    ws.terminate();
    await rejection(ws.closed);
    const first = await rejection(waitForMessage(ws));
    assert.match(stackOf(first), /waitForMessage/);
    assert.match(stackOf(await rejection(readAll(ws))), /readAll/);
    const sent = await rejection(sendAll(ws, "a"));
    assert.match(stackOf(sent), /sendAll/);
    for (let i = 0; i < 100; i++) await rejection(waitForMessage(ws));
    assert.ok(stackOf(first).split("\n").length <= 11);
  });

  it("The stack has the frames of the newest call only, each once", async () => {
    const [ws] = await pair();
    const waiting = rejection(waitForMessage(ws));
    ws.terminate();
    await waiting;
    assert.doesNotMatch(stackOf(await rejection(readAll(ws))), /waitForMessage/);
    assert.doesNotMatch(stackOf(await rejection(waitForMessage(ws))), /readAll/);
    const internal = /captureStack|makePrintable|makeReadable|withCode/;
    for (const message of ["a", ["a"]]) {
      const stack = stackOf(await rejection(sendAll(ws, message)));
      assert.equal(stack.split("sendAll").length, 2, stack);
      assert.doesNotMatch(stack, internal);
    }
    const newest = stackOf(await rejection(sendOnce(ws)));
    assert.match(newest, /sendOnce/);
    assert.doesNotMatch(newest, /sendAll/);
    const [other] = await pair();
    other.terminate();
    assert.doesNotMatch(stackOf(await rejection(other.closed)), internal);
    assert.doesNotMatch(stackOf(new WebSocketError("a")), internal);
  });

  it(
    "An item that cannot be sent has the caller in its stack",
    { skip },
    async () => {
      const wrong: unknown[] = [[5], ["a", new Uint8Array(1)]];
      for (const message of wrong) {
        const [ws] = await pair();
        assert.match(stackOf(await sendingError(ws, message as string[])), /sendAll/);
        ws.terminate();
      }
    },
  );

  it("The error of a source keeps its stack", async () => {
    const [ws] = await pair();
    const thrown = new TypeError("thrown by the source");
    const { stack } = thrown;
    const source = new ReadableStream<string>({ pull: (controller) => controller.error(thrown) });
    assert.equal(await sendingError(ws, source), thrown);
    assert.equal(thrown.stack, stack);
    ws.terminate();
  });

  it(
    "A call that the end interrupts has the caller in its stack",
    { skip },
    async () => {
      const waits: [name: string, wait: (ws: WebSocketConnection) => Promise<void>][] = [
        ["waitForMessage", waitForMessage],
        ["readAll", readAll],
        ["sendAll", (ws) => sendAll(ws, endless())],
      ];
      for (const [name, wait] of waits) {
        for (const end of ["terminate", "close"] as const) {
          const [ws, peer] = await pair();
          // Awaits only the function, so that the stack contains its frames.
          const caught = (async () => {
            try {
              await wait(ws);
            } catch (error) {
              return error;
            }
          })();
          await new Promise((resolve) => setTimeout(resolve, 5));
          if (end === "close") ws.close({ closeCode: 4000 });
          else ws.terminate();
          const error = await caught;
          assert.match(stackOf(error), new RegExp(`^\\w+: [^]*at async ${name}`), `${name} ${end}`);
          peer.terminate();
        }
      }
    },
  );

  it(
    "A send that waits for the transport has the caller in its stack",
    { skip },
    async () => {
      const server = await serve({ hostname: "127.0.0.1", port: 0 }, async (ws) => {
        await new Promise((resolve) => setTimeout(resolve, 50));
        ws.terminate();
      });
      const ws = await connect(server.url!);
      const caught = (async () => {
        try {
          await sendAll(ws, new Uint8Array(50_000_000));
        } catch (error) {
          return error;
        }
      })();
      assert.match(stackOf(await caught), /at async sendAll/);
      await server.shutdown();
    },
  );

  it("console.log prints the stack and the codes, and nothing of the prototype", async () => {
    const [ws, peer] = await pair();
    peer.close({ closeCode: 4001, reason: "bye" });
    await ws.closed;
    const error = await rejection(ws.receive());
    const text = inspect(error);
    assert.match(text, /^WebSocketError: The connection was closed/);
    assert.match(text, /errorCode: 'closed'/);
    assert.match(text, /closeCode: 4001/);
    assert.match(text, /reason: 'bye'/);
    assert.doesNotMatch(text, /INDEX_SIZE_ERR|Getter/);
    const late = inspect(await rejection(ws.send("a")));
    assert.match(late, /^InvalidStateError: Cannot send: the connection is closed/);
    assert.doesNotMatch(late, /INDEX_SIZE_ERR/);
  });
});
