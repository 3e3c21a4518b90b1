/** Rows K33 to K66: the client, and the connection on both sides. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, HandshakeError, type Message, WebSocketError } from "../mod.ts";
import { Endpoint, Opcode } from "../lib/core/mod.ts";
import { latin1, utf8 } from "./bytes.ts";
import { certificates } from "./certificates.ts";
import {
  binaryFrame,
  closeFrame,
  collect,
  failure,
  frames,
  held,
  inBothRoles,
  isPending,
  pingFrame,
  pongFrame,
  portOf,
  rejection,
  still,
  textFrame,
  upgradeResponse,
  urlOf,
  withPeer,
  withServer,
} from "./support.ts";

describe("Parity of the client", () => {
  it("K33 K34 connects by its URL with its options, and closes at the end of its scope", async () => {
    await withServer({ protocols: ["a"] }, async (server) => {
      const ws = await connect(urlOf(server), {
        protocols: ["a"],
        origin: "http://a.test",
        headers: { "X-A": "b" },
      });
      const [{ request }] = server.connections;
      assert.equal(request.headers.get("origin"), "http://a.test");
      assert.equal(request.headers.get("x-a"), "b");
      await ws[Symbol.asyncDispose]();
      assert.equal(ws.state, "closed");
    });
  });

  it("K35 trusts what the platform does over wss, or what the options say", async () => {
    const { ca, leaf } = await certificates();
    await withServer({ tls: leaf }, async (server) => {
      const url = `wss://localhost:${portOf(server)}`;
      const error = await rejection<HandshakeError>(connect(url));
      assert.equal(error.code, "certificate");
      await (await connect(url, { tls: { ca } })).close();
    });
  });

  it("K36 K82 tells an invalid URL from a handshake that failed", async () => {
    const invalid = await rejection(connect("ftp://a.test"));
    assert.ok(invalid instanceof DOMException && invalid.name === "SyntaxError");
    const error = await failure((raw) => raw.socket.end());
    assert.ok(error instanceof HandshakeError);
  });

  it("K37 the client's side of one connection is usable by itself", async () => {
    const [ws, peer] = await withPeer("client");
    ws.terminate();
    peer.transport.destroy();
    const endpoint = new Endpoint("client");
    const sent = endpoint.send({ type: "request", host: "a.test", target: "/" });
    endpoint.receive(latin1(upgradeResponse(String.fromCharCode(...sent))));
    assert.equal(endpoint.next()?.type, "accept");
    assert.deepEqual(endpoint.agreement, { protocol: "", extensions: [] });
  });
});

describe("Parity of the connection", () => {
  for (const closeCode of [1000, 1001, 1005, 1002, 3000]) {
    const ends = [1000, 1001, 1005].includes(closeCode);
    it(`K38 iteration ${ends ? "ends" : "throws"} on ${closeCode}`, async () => {
      await inBothRoles(async (ws, peer) => {
        peer.send(textFrame("a"), closeFrame(closeCode === 1005 ? undefined : closeCode));
        const messages: Message[] = [];
        const iterating = (async () => {
          for await (const message of ws) messages.push(message);
        })();
        if (ends) await iterating;
        else assert.equal((await rejection<WebSocketError>(iterating)).closeCode, closeCode);
        assert.deepEqual(messages, ["a"]);
      });
    });
  }

  it("K39 K48 knows host, port, path, and whether it is encrypted", async () => {
    await withServer({}, async (server) => {
      const ws = await connect(urlOf(server, "/a?b"));
      for (const { request } of [ws, ...server.connections]) {
        const { protocol, hostname, port, pathname, search } = new URL(request.url);
        assert.deepEqual([protocol, hostname, port, pathname, search], [
          "http:",
          "127.0.0.1",
          `${portOf(server)}`,
          "/a",
          "?b",
        ]);
      }
      await ws.close();
    });
  });

  it("K40 sends pings, unless pingInterval is 0", async () => {
    await inBothRoles(async (_, peer) => {
      assert.equal((await peer.next()).opcode, Opcode.Ping);
    }, { pingInterval: 5, pingTimeout: 0 });
    await inBothRoles(async (_, peer) => {
      assert.equal(await still(() => peer.frames.length), 0);
    }, { pingInterval: 0 });
  });

  it("K41 closes with 1011 without a pong, unless pingTimeout is 0", async () => {
    const options = { pingInterval: 5, pingTimeout: 5, closeTimeout: 5 };
    await inBothRoles(async (ws) => {
      assert.equal((await rejection<WebSocketError>(held(ws.closed))).closeCode, 1011);
    }, options);
    await inBothRoles(async (ws) => {
      assert.ok(await isPending(ws.closed));
    }, { ...options, pingTimeout: 0 });
  });

  it("K42 K52 close() ends within closeTimeout, also if the peer is silent and it is called again", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.polite = false;
      ws.close({ closeCode: 1000, reason: "a" });
      await held(ws.close());
      await ws.close({ closeCode: 3000 });
      assert.equal(ws.state, "closed");
      assert.deepEqual(await peer.nextClose(), { closeCode: 1000, reason: "a" });
    }, { closeTimeout: 20 });
  });

  it("K43 K84 a message that is too long is 1009, and the reader sees it; Infinity is no limit", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(binaryFrame(new Uint8Array(11)));
      const error = await rejection<WebSocketError>(ws.receive());
      assert.equal(error.closeCode, 1009);
      assert.equal((await peer.nextClose()).closeCode, 1009);
    }, { maxMessageSize: 10 });
    await inBothRoles(async (ws, peer) => {
      peer.send(binaryFrame(new Uint8Array(2_000_000)));
      assert.equal((await ws.receive()).length, 2_000_000);
    }, { maxMessageSize: Infinity });
  });

  it("K44 K45 K46 K47 a full inbox pauses the transport until it has been read", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 400; i++) peer.send(binaryFrame(new Uint8Array(1000)));
      const queued = await still(() => ws.stats.queued);
      assert.ok(queued < 65536 + 2 * 1064, `${queued}`);
      assert.ok(ws.stats.paused);
      for (let i = 0; i < 400; i++) assert.equal((await ws.receive()).length, 1000);
      assert.equal(ws.stats.paused, false);
      assert.ok(ws.stats.peakQueued < 65536 + 2 * 1064);
    });
  });

  it("K49 the headers of requests, responses and refusals cannot be changed", async () => {
    const changes: ((headers: Headers) => void)[] = [
      (headers) => headers.set("x-a", "2"),
      (headers) => headers.append("x-a", "2"),
      (headers) => headers.delete("x-a"),
    ];
    const assertFixed = (headers: Headers) => {
      for (const change of changes) assert.throws(() => change(headers), TypeError);
      assert.equal(headers.get("x-a"), "1");
      assert.ok([...headers].some(([name, value]) => name === "x-a" && value === "1"));
      assert.equal(new Headers(headers).get("x-a"), "1");
    };
    const headers = { "X-A": "1" };
    await withServer({ headers }, async (server) => {
      const ws = await connect(urlOf(server), { headers });
      const [peer] = server.connections;
      for (const { request, response } of [ws, peer]) {
        assertFixed(request.headers);
        assertFixed(response.headers);
        assert.equal(new Request(request).headers.get("x-a"), "1");
      }
      await ws.close();
    });
  });

  it("K49 K50 has the headers of both sides, which cannot be changed, and the subprotocol", async () => {
    await withServer({ protocols: ["a"], headers: { "X-A": "b" } }, async (server) => {
      const ws = await connect(urlOf(server), { protocols: ["a"] });
      for (const one of [ws, ...server.connections]) {
        assert.equal(one.protocol, "a");
        assert.equal(one.request.headers.get("sec-websocket-protocol"), "a");
        assert.equal(one.response.headers.get("x-a"), "b");
        assert.ok(one.rawHeaders.response.some(([name]) => name.toLowerCase() === "x-a"));
        assert.throws(() => {
          (one as { request: unknown }).request = undefined;
        }, TypeError);
      }
      await ws.close();
    });
  });

  it("K51 K53 K65 K69 tells the code and reason of the close, and waits for it", async () => {
    await inBothRoles(async (ws, peer) => {
      assert.ok(await isPending(ws.closed));
      peer.send(closeFrame(3000, "a"));
      const info = { closeCode: 3000, reason: "a" };
      assert.deepEqual(await ws.closed, info);
      assert.deepEqual(ws.closeInfo!.received, info);
      assert.equal(ws.closeInfo!.first, "received");
      assert.equal(ws.state, "closed");
      const error = await rejection<WebSocketError>(ws.receive());
      assert.ok(error instanceof WebSocketError);
      assert.deepEqual([error.closeCode, error.reason], [3000, "a"]);
    });
  });

  it("K54 receive() gives a string or bytes, and an error at the end", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), binaryFrame(utf8("b")), closeFrame(1000));
      assert.equal(await ws.receive(), "a");
      assert.deepEqual(await ws.receive(), utf8("b"));
      assert.equal((await rejection<WebSocketError>(ws.receive())).closeCode, 1000);
    });
  });

  it("K55 a receive() that is taken back loses nothing", async () => {
    await inBothRoles(async (ws, peer) => {
      const controller = new AbortController();
      const receiving = ws.receive({ signal: controller.signal });
      controller.abort(new Error("enough"));
      peer.send(textFrame("a"));
      assert.equal((await rejection(receiving)).message, "enough");
      assert.equal(await ws.receive(), "a");
    });
  });

  it("K56 K79 a second receive() is an error while one waits", async () => {
    await inBothRoles(async (ws, peer) => {
      const first = ws.receive();
      assert.equal((await rejection(ws.receive())).name, "InvalidStateError");
      peer.send(textFrame("a"));
      assert.equal(await first, "a");
    });
  });

  it("K57 K59 sends strings and bytes, and refuses all else", async () => {
    await inBothRoles(async (ws, peer) => {
      await ws.send("a");
      await ws.send(utf8("b"));
      await ws.send(new DataView(utf8("c").buffer));
      assert.deepEqual(await frames(peer, 3), [
        ["text", "a", true],
        ["binary", "b", true],
        ["binary", "c", true],
      ]);
      for (const wrong of [5, null, undefined, {}, true]) {
        assert.ok(await rejection(ws.send(wrong as never)) instanceof TypeError);
      }
      assert.equal(ws.state, "open");
    });
  });

  it("K58 sends an item of an iterable as a frame; mixed types close the connection", async () => {
    await inBothRoles(async (ws, peer) => {
      await ws.send(["a", "b"]);
      const [first, second] = await frames(peer, 2);
      assert.deepEqual([first.slice(0, 2), second.slice(0, 2)], [["text", "a"], ["more", "b"]]);
      if (!second[2]) assert.deepEqual(await frames(peer, 1), [["more", "", true]]);
      await rejection(ws.send(["a", utf8("b")]));
      const rest = await collect((async function* () {
        for (;;) {
          const frame = await peer.next();
          if (frame.opcode === Opcode.Close) return;
          yield frame;
        }
      })());
      assert.ok(rest.length <= 1);
      assert.notEqual(ws.state, "open");
    });
  });

  it("K60 K66 ping() settles by its own pong, and rejects when the connection closes", async () => {
    await inBothRoles(async (ws, peer) => {
      const first = ws.ping();
      const { payload } = await peer.next();
      assert.equal(payload.length, 4);
      const second = ws.ping("b");
      peer.send(pongFrame(utf8("other")));
      assert.ok(await isPending(first));
      peer.send(pongFrame(payload));
      assert.equal(typeof await first, "number");
      assert.ok(await isPending(second));
      peer.send(closeFrame(1000));
      await rejection(second);
    });
  });

  it("K61 K62 sends unsolicited pongs, and answers pings and Close frames", async () => {
    await inBothRoles(async (ws, peer) => {
      await ws.pong("a");
      const { opcode, payload } = await peer.next();
      assert.deepEqual([opcode, payload], [Opcode.Pong, utf8("a")]);
      peer.send(pingFrame("b"));
      assert.deepEqual((await peer.next()).payload, utf8("b"));
      peer.send(closeFrame(3000));
      assert.equal((await peer.nextClose()).closeCode, 3000);
    });
  });

  it("K63 K64 tells the addresses of both ends, and that it is open", async () => {
    await withServer({}, async (server) => {
      const ws = await connect(urlOf(server));
      const [theirs] = server.connections;
      assert.deepEqual(ws.remoteAddress, server.address);
      assert.deepEqual(ws.localAddress, theirs.remoteAddress);
      assert.deepEqual([ws.state, theirs.state], ["open", "open"]);
      await ws.close();
    });
  });
});
