/** Rows W52, W53 and W56 (for RFC 7692), and K16, K70, K77, K78 and K114: compression. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect } from "../mod.ts";
import {
  Endpoint,
  type EndpointEvent,
  type PerMessageDeflateInit,
  supportedExtensions,
} from "../lib/core/mod.ts";
import { deflateEngine } from "../lib/zlib.ts";
import { DEFLATE_ROWS, LARGE } from "./conformance/deflate.ts";
import { DEFLATE_LEVELS } from "./conformance/deflate_levels.ts";
import { merged, read, REQUEST } from "./endpoints.ts";
import { ROLES, urlOf, withServer } from "./support.ts";

const deflate = (init: Partial<PerMessageDeflateInit> = {}) =>
  new supportedExtensions["permessage-deflate"]({ engine: deflateEngine, ...init });

/** Two ends that have agreed on extensions, and the value of the field in the response. */
function agreed(
  client: Partial<PerMessageDeflateInit>,
  server: Partial<PerMessageDeflateInit>,
): { client: Endpoint; server: Endpoint; parameters: unknown } {
  const ends = {
    client: new Endpoint("client", { extensions: [deflate(client)] }),
    server: new Endpoint("server", { extensions: [deflate(server)] }),
  };
  read(ends.server, ends.client.send(REQUEST));
  const [accept] = read(ends.client, ends.server.send({ type: "accept" }));
  assert.ok(accept.type === "accept");
  assert.deepEqual(accept.extensions.map(({ name }) => name), ["permessage-deflate"]);
  return { ...ends, parameters: Object.fromEntries(accept.extensions[0].parameters) };
}

/** The text of the only message in the events. */
function textOf(events: EndpointEvent[]): string {
  const [event, ...others] = merged(events);
  assert.ok(event.type === "text" && event.messageFinished && others.length === 0);
  return event.data;
}

describe("wsproto: compression", () => {
  const cases: [
    client: Partial<PerMessageDeflateInit>,
    server: Partial<PerMessageDeflateInit>,
    parameters: Record<string, string | undefined>,
  ][] = [
    [{ memory: "high" }, { memory: "high" }, {}],
    [{ memory: "high", clientNoContextTakeover: true }, { memory: "high" }, {
      client_no_context_takeover: undefined,
    }],
    [{ memory: "high" }, { memory: "high", serverNoContextTakeover: true }, {
      server_no_context_takeover: undefined,
    }],
    [{ memory: "high", serverMaxWindowBits: 9 }, { memory: "high" }, {
      server_max_window_bits: "9",
    }],
    [{ memory: "high" }, { memory: "high", clientMaxWindowBits: 10 }, {
      client_max_window_bits: "10",
    }],
  ];
  for (const [ours, theirs, parameters] of cases) {
    it(`W52 ${JSON.stringify([ours, theirs])}: both ends agree, and read each other`, () => {
      const { client, server, parameters: found } = agreed(ours, theirs);
      assert.deepEqual(found, parameters);
      const text = "compress me ".repeat(400);
      for (let again = 0; again < 3; again++) {
        const up = client.send({ type: "text", data: text });
        assert.ok(up.length < text.length / 10);
        assert.equal(textOf(read(server, up)), text);
        assert.equal(textOf(read(client, server.send({ type: "text", data: text }))), text);
      }
      client.dispose();
      server.dispose();
    });
  }

  for (const bits of [7, 16, 9.5, -1]) {
    it(`W52 a window of ${bits} bits is our caller's error`, () => {
      assert.throws(() => deflate({ clientMaxWindowBits: bits }), RangeError);
      assert.throws(() => deflate({ serverMaxWindowBits: bits }), RangeError);
    });
  }

  it("W53 the extensions that there are, by their registered names", () => {
    assert.deepEqual(Object.keys(supportedExtensions), ["permessage-deflate"]);
    assert.equal(deflate().name, "permessage-deflate");
  });

  it("W56 the whole of RFC 7692: rows of the conformance groups 12 and 13, in both roles", async () => {
    const rows = DEFLATE_ROWS.filter(({ size }) => size <= LARGE / 16);
    assert.deepEqual([...new Set(rows.map(({ id }) => id.split(".")[0]))].sort(), ["12", "13"]);
    const [[, level]] = DEFLATE_LEVELS;
    for (const row of rows) for (const role of ROLES) await level(row, role, 2);
  });
});

describe("websockets: compression", () => {
  const offers: [ours: boolean, theirs: boolean, agreed: boolean][] = [
    [true, true, true],
    [false, true, false],
    [true, false, false],
  ];
  for (const [ours, theirs, found] of offers) {
    const title = `connect() with ${ours} and serve() with ${theirs}`;
    it(`K16 ${title}: ${found ? "" : "not "}compressed`, async () => {
      await withServer({ compression: theirs }, async (server) => {
        const ws = await connect(urlOf(server), { compression: ours });
        assert.equal(ws.extensions.startsWith("permessage-deflate"), found);
        await ws.send("a".repeat(5000));
        assert.equal(await ws.receive(), "a".repeat(5000));
        assert.equal(ws.stats.bytesSent < 1000, found);
        await ws.close();
      });
    });
  }

  it("K16 a client offers compression by default, a server accepts it with the option", async () => {
    await withServer({}, async (server) => {
      const ws = await connect(urlOf(server));
      assert.match(ws.request.headers.get("sec-websocket-extensions")!, /^permessage-deflate/);
      assert.equal(ws.extensions, "");
      await ws.close();
    });
  });

  const failures: [id: string, code: string, parameters: [string, string | undefined][]][] = [
    ["K70", "duplicate-parameter", [
      ["server_no_context_takeover", undefined],
      ["server_no_context_takeover", undefined],
    ]],
    ["K77", "parameter-name", [["unknown", undefined]]],
    ["K78", "parameter-value", [["server_max_window_bits", "16"]]],
  ];
  for (const [id, code, parameters] of failures) {
    it(`${id} ${code}: a server's answer with ${JSON.stringify(parameters)}`, () => {
      assert.throws(() => deflate().finalize(parameters), { name: "HandshakeError", code });
    });
  }

  for (const bits of [8, 9, 10, 11, 12, 13, 14, 15]) {
    it(`K114 windows of ${bits} bits, and settings of the compressor`, () => {
      const settings = { serverMaxWindowBits: bits, level: 9, memLevel: 9 };
      const { client, server } = agreed({}, settings);
      const text = "window ".repeat(2000);
      assert.equal(textOf(read(client, server.send({ type: "text", data: text }))), text);
      client.dispose();
      server.dispose();
    });
  }
});
