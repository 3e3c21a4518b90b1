import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import {
  connect,
  HandshakeError,
  isTransient,
  serve,
  type ServeOptions,
  type WebSocketConnection,
} from "../mod.ts";
import { defaultProvider } from "../lib/platform.ts";
import { attach } from "../lib/node.ts";
import { ConnectionCount } from "../lib/server/sessions.ts";
import { transportPair } from "../lib/testing.ts";
import type { Transport } from "../lib/transport.ts";
import { certificates } from "./certificates.ts";
import { echo, portOf, RawSocket, rejection, until, urlOf, withServer } from "./support.ts";

type Limits = Pick<ServeOptions, "maxConnections" | "maxConnectionsPerAddress" | "maxLifetime">;

interface Limited {
  url: string;
  connections: ReadonlySet<WebSocketConnection>;
}

const SERVERS: [name: string, run: (limits: Limits, test: (at: Limited) => unknown) => unknown][] =
  [
    ["serve()", async (limits, test) => {
      await withServer(
        limits,
        ({ address, connections }) => test({ url: urlOf({ address }), connections }),
      );
    }],
    ["attach()", async (limits, test) => {
      const server = createServer();
      const attached = attach(server, limits, echo);
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/`;
      await test({ url, connections: attached.connections });
      await attached.shutdown();
      await new Promise((resolve) => server.close(resolve));
    }],
  ];

async function refusalOf(url: string): Promise<HandshakeError> {
  const error = await rejection<HandshakeError>(connect(url));
  assert.ok(error instanceof HandshakeError, String(error));
  return error;
}

describe("Limits of a server", () => {
  for (const [name, withLimits] of SERVERS) {
    for (const limit of ["maxConnections", "maxConnectionsPerAddress"] as const) {
      it(`${name} refuses one more than ${limit}, and has room again later`, async () => {
        await withLimits({ [limit]: 2 }, async ({ url, connections }) => {
          const open = [await connect(url), await connect(url)];
          const error = await refusalOf(url);
          assert.equal(error.response!.status, 503);
          const text = await new Response(error.response!.body).text();
          assert.match(text, new RegExp(`${limit} \\(2\\) is reached`));
          assert.ok(isTransient(error));
          assert.equal(connections.size, 2);
          await open[0].close();
          await until(() => connections.size === 1);
          const third = await connect(url);
          await third.send("a");
          assert.equal(await third.receive(), "a");
          await Promise.all([third.close(), open[1].close()]);
        });
      });
    }

    it(`${name} closes with 1001 after maxLifetime`, async () => {
      await withLimits({ maxLifetime: 50 }, async ({ url }) => {
        const ws = await connect(url);
        assert.equal((await ws.closed).closeCode, 1001);
      });
    });

    it(`${name} leaves alone what may live for ever`, async () => {
      for (const maxLifetime of [0, 2 ** 32, Infinity]) {
        await withLimits({ maxLifetime }, async ({ url }) => {
          const ws = await connect(url);
          await ws.send("a");
          assert.equal(await ws.receive(), "a");
          assert.equal((await ws.close({ closeCode: 3000 })).closeCode, 3000);
        });
      }
    });
  }

  it("serve() counts handshakes in progress, and no longer those that failed", async () => {
    await withServer({ maxConnections: 1 }, async (server) => {
      const first = await RawSocket.connect(portOf(server));
      first.write("GET / HTTP/1.1\r\n");
      let error = await refusalOf(urlOf(server));
      assert.equal(error.response!.status, 503);
      first.write("nonsense\r\n\r\n");
      await until(() => first.text.startsWith("HTTP/1.1 400"));
      await first.close();
      // Until the server has noticed the end.
      let ws: WebSocketConnection | undefined;
      while (ws === undefined) {
        ws = await connect(urlOf(server)).catch((thrown) => void (error = thrown));
      }
      await ws.close();
    });
  });

  it("serve() reads nothing of one too many", async () => {
    let asked = 0;
    await withServer({ maxConnections: 0, onRequest: () => void asked++ }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      await until(() => raw.ended);
      assert.match(raw.text, /^HTTP\/1.1 503 /);
      raw.socket.destroy();
      assert.equal(asked, 0);
    });
  });

  it("serve() applies the limits over TLS", async () => {
    const { ca, leaf } = await certificates();
    await withServer({ tls: leaf, maxConnectionsPerAddress: 1 }, async (server) => {
      const url = urlOf(server).replace("ws:", "wss:");
      const ws = await connect(url, { tls: { ca } });
      const error = await rejection<HandshakeError>(connect(url, { tls: { ca } }));
      assert.equal(error.response!.status, 503);
      await ws.close();
    });
  });

  const addresses: [first: string, second: string, same: boolean][] = [
    ["10.0.0.1", "10.0.0.1", true],
    ["10.0.0.1", "10.0.0.2", false],
    ["10.0.0.1", "::ffff:10.0.0.1", true],
    ["::ffff:10.0.0.1", "::ffff:10.0.0.2", false],
    ["2001:db8::1", "2001:db8::2", true],
    ["2001:db8:0:1::1", "2001:db8:0:2::1", false],
  ];
  for (const [first, second, same] of addresses) {
    it(`${first} and ${second} are ${same ? "one address" : "two"}`, () => {
      const count = new ConnectionCount({ maxConnectionsPerAddress: 1 });
      const enter = (hostname: string) =>
        count.enter({ remoteAddress: { transport: "tcp", hostname, port: 1 } });
      const place = enter(first);
      assert.ok(typeof place === "string");
      const refused = enter(second);
      assert.equal(refused instanceof HandshakeError, same);
      if (refused instanceof HandshakeError) assert.equal(refused.code, "too-many-connections");
      count.leave(place);
      assert.equal(typeof enter(first), "string");
    });
  }

  it("Those without an address are counted in all only", () => {
    const count = new ConnectionCount({ maxConnections: 2, maxConnectionsPerAddress: 1 });
    const remoteAddress = { transport: "unix", path: "/a" } as const;
    const kinds = [1, 2, 3].map(() => typeof count.enter({ remoteAddress }));
    assert.deepEqual(kinds, ["string", "string", "object"]);
  });

  for (const name of ["maxConnections", "maxConnectionsPerAddress", "maxLifetime"]) {
    it(`serve() refuses a ${name} that is no number, or negative`, async () => {
      for (
        const [value, error] of [["1", TypeError], [-1, RangeError], [NaN, RangeError]] as const
      ) {
        const options = { [name]: value } as ServeOptions;
        assert.ok(await rejection(serve(options, echo)) instanceof error);
      }
    });
  }

  it("A transport of a given provider that throws at once is reported, and takes no place", async () => {
    let take: ((transport: Transport) => void) | undefined;
    const errors: Error[] = [];
    const server = await serve({
      port: 0,
      maxConnections: 1,
      onError: (error) => errors.push(error as Error),
      provider: {
        ...await defaultProvider(),
        listen(_options, accept) {
          take = accept;
          const address = { transport: "unix", path: "/nowhere" } as const;
          return Promise.resolve({ address, close: () => Promise.resolve() });
        },
      },
    }, echo);
    for (let i = 1; i <= 2; i++) {
      const [transport] = transportPair();
      transport.handle = () => {
        throw new Error(`Fault ${i}`);
      };
      take!(transport);
      await until(() => errors.length === i);
    }
    assert.deepEqual(errors.map(({ message }) => message), ["Fault 1", "Fault 2"]);
    await server.shutdown();
  });
});
