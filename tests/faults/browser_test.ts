/**
 * Faults of the entry point for browsers on the running runtime, and native WebSockets whose peers never end
 * the connection. `tests/interop/browser_entry_test.ts` tests Chromium.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  fromWebSocket,
  type HandshakeError,
  type Message,
  type WebSocketError,
} from "../../mod.ts";
import * as browser from "../../lib/browser.ts";
import { encodeFrame, Opcode, serializeClose } from "../../lib/core/mod.ts";
import { nextTurn } from "../../lib/timers.ts";
import { utf8 } from "../bytes.ts";
import { FakeSocket, withGlobals } from "../native_sockets.ts";
import { withPrograms } from "../programs.ts";
import {
  held,
  rejection,
  requestOf,
  until,
  upgradeResponse,
  urlOf,
  withRawServer,
  withServer,
} from "../support.ts";
import { inVirtualTime, settle } from "../virtual_time.ts";

/** A program whose platform has the classes of WebSocketStream. */
const NATIVE_PROGRAM = `
class NativeError extends DOMException {
  #closeCode = null;
  constructor(message = "") { super(message, "WebSocketError"); }
  get closeCode() { return this.#closeCode; }
  get reason() { return ""; }
}
const { serve, WebSocketStream: Ours } = await import("sluice");
class NativeStream extends Ours {}
Object.assign(globalThis, { WebSocketStream: NativeStream, WebSocketError: NativeError });
const { connect, WebSocketError, WebSocketStream } = await import("sluice/browser");
const server = await serve({ port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
const ws = await connect("ws://127.0.0.1:" + server.address.port, { maxMessageSize: 3 });
await ws.send("longer");
const error = await ws.receive().catch((error) => error);
console.log(JSON.stringify({
  same: WebSocketStream === NativeStream && WebSocketError === NativeError,
  instance: error instanceof WebSocketError,
  class: error.constructor === WebSocketError,
  dom: error instanceof DOMException,
  name: error.name,
  closeCode: error.closeCode,
  made: new WebSocketError("x").constructor === WebSocketError,
}));
await server.shutdown();
`;

describe("E7 the browser's own classes", () => {
  it("E7 exports the classes of the platform, and our errors are instances of them", async () => {
    await withPrograms(async (start) => {
      const child = await start("native.mjs", NATIVE_PROGRAM);
      assert.equal(await child.exited, 0, child.stderr);
      assert.deepEqual(JSON.parse(child.stdout), {
        same: true,
        instance: true,
        class: true,
        dom: true,
        name: "WebSocketError",
        closeCode: 1009,
        made: true,
      });
    });
  });
});

describe("E8 relative URLs", () => {
  const resolved: [given: string, path: string][] = [
    ["/echo", "/echo"],
    ["echo?a=b", "/app/echo?a=b"],
    ["../echo", "/echo"],
    ["", "/app/page"],
    ["?q", "/app/page?q"],
  ];
  for (const [given, path] of resolved) {
    it(`E8 ${JSON.stringify(given)} is resolved against the page`, async () => {
      const asked: string[] = [];
      const onRequest = ({ url }: Request) => {
        const { pathname, search } = new URL(url);
        asked.push(pathname + search);
      };
      await withServer({ onRequest }, async (server) => {
        const page = urlOf(server, "/app/page").replace("ws", "http");
        await withGlobals({ document: undefined, location: { href: page } }, async () => {
          const ws = await browser.connect(given);
          await ws.close();
          const stream = new browser.WebSocketStream(given);
          assert.equal(stream.url, urlOf(server, path));
          await stream.opened;
          stream.close();
          await stream.closed;
        });
        assert.deepEqual(asked, [path, path]);
      });
    });
  }

  it("E8 the base URL of a document counts, and https becomes wss", async () => {
    const document = { baseURI: "https://a.example/base/" };
    const location = { href: "https://b.example/" };
    const signal = AbortSignal.abort();
    await withGlobals({ document, location }, () => {
      const stream = new browser.WebSocketStream("x", { signal });
      assert.equal(stream.url, "wss://a.example/base/x");
      assert.equal(new browser.WebSocketStream("//c/", { signal }).url, "wss://c/");
    });
  });

  it("E8 relative URLs are a SyntaxError without a page of http or https", async () => {
    for (const location of [undefined, { href: "about:blank" }, { href: "file:///a/b" }]) {
      await withGlobals({ document: undefined, location }, async () => {
        await assert.rejects(browser.connect("/echo"), { name: "SyntaxError" });
        assert.throws(() => new browser.WebSocketStream("/echo"), { name: "SyntaxError" });
      });
    }
  });
});

describe("G4 connections that the browser does not open", () => {
  class Closed extends FakeSocket {
    override readyState = 3;
  }
  class Failing extends FakeSocket {
    override readyState = 0;
    constructor() {
      super();
      setTimeout(() => this.emit("error"));
    }
  }
  class Throwing extends FakeSocket {
    constructor() {
      super();
      throw new DOMException("blocked", "SecurityError");
    }
  }
  for (const WebSocket of [Closed, Failing, Throwing]) {
    it(`G4 connect-failed, which names the possible causes: ${WebSocket.name}`, async () => {
      await withGlobals({ WebSocket }, async () => {
        const url = "wss://ada:lovelace@a.example/path?token=secret";
        const error = await rejection<HandshakeError>(browser.connect(url));
        assert.ok(error instanceof browser.HandshakeError);
        assert.equal(error.code, "connect-failed");
        assert.match(error.message, / to a\.example, .*Content-Security-Policy .*connect-src/);
        assert.doesNotMatch(error.message, /lovelace|secret/);
        if (WebSocket === Throwing) {
          assert.equal((error.cause as DOMException).name, "SecurityError");
        }
        const stream = new browser.WebSocketStream(url);
        const { cause } = await rejection<WebSocketError>(stream.opened);
        assert.equal((cause as HandshakeError).code, "connect-failed");
        await rejection(stream.closed);
      });
    });
  }

  it("G4 a server that refuses is the same", async () => {
    await withServer({ origins: [] }, async (server) => {
      const error = await rejection<HandshakeError>(browser.connect(urlOf(server)));
      assert.equal(error.code, "connect-failed");
      assert.match(error.message, /refuse the handshake/);
    });
  });
});

function closeFrame(): Uint8Array {
  const payload = serializeClose({ closeCode: 1000 });
  return encodeFrame({ opcode: Opcode.Close, payload });
}

describe("G5 native WebSockets whose peer does not end the transport", () => {
  it("G5 the platform's own: the messages, then the end", async () => {
    // The sockets are ended after the test.
    await withRawServer(async (raw) => {
      raw.write(upgradeResponse(await requestOf(raw)));
      raw.write(encodeFrame({ opcode: Opcode.Text, payload: utf8("last") }));
      raw.write(closeFrame());
    }, async (url) => {
      const ws = await fromWebSocket(new WebSocket(url), { closeTimeout: 100 });
      const messages: Message[] = [];
      try {
        for await (const message of ws) messages.push(message);
      } catch (error) {
        assert.equal((error as WebSocketError).closeCode, 1006);
      }
      assert.deepEqual(messages, ["last"]);
      const { closeCode } = await ws.closed.catch((error: WebSocketError) => error);
      // Node's WebSocket reports the close only at the end of the transport.
      assert.ok(closeCode === 1000 || closeCode === 1006, `${closeCode}`);
    });
  });

  it("G5 a socket that stays closing is let go after closeTimeout, and terminated", async () => {
    class Closing extends FakeSocket {
      terminated = 0;
      terminate(): void {
        this.terminated++;
      }
    }
    const socket = new Closing();
    const ws = await fromWebSocket(socket, { closeTimeout: 40 });
    socket.emit("message", { data: "a" });
    socket.readyState = 2;
    assert.equal(await ws.receive(), "a");
    // Nothing else keeps the process running.
    const error = await held(rejection<WebSocketError>(ws.closed));
    assert.equal(error.closeCode, 1006);
    assert.equal(socket.terminated, 1);
    assert.equal(ws.state, "closed");
    await until(() => socket.listeners.message === 0);
  });

  it("G5 a close that has arrived during a standstill is read first", async () => {
    for (const before of [0, 990, 1240]) {
      await inVirtualTime(async (time) => {
        const socket = new FakeSocket();
        const ws = await fromWebSocket(socket, { closeTimeout: 1000 });
        socket.readyState = 2;
        await time.advance(before);
        time.standStill(5000);
        // Data that has arrived is delivered in the turn after the timers.
        await new Promise<void>((resolve) => nextTurn(resolve));
        socket.emit("close", { code: 1000, reason: "", wasClean: true });
        await settle();
        assert.equal((await ws.closed).closeCode, 1000);
        assert.equal(time.waiting, 0);
      });
    }
  });

  it("G5 a socket that is open is left alone, and so is one without closeTimeout", async () => {
    for (const [readyState, closeTimeout] of [[1, 8], [2, 0]]) {
      const socket = new FakeSocket();
      const ws = await fromWebSocket(socket, { closeTimeout });
      socket.readyState = readyState;
      await new Promise((resolve) => setTimeout(resolve, 60));
      assert.equal(ws.state, "open");
      socket.emit("close", { code: 1000, reason: "", wasClean: true });
      assert.equal((await ws.closed).closeCode, 1000);
    }
  });
});
