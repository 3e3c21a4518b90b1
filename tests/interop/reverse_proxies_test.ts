/** Our client through nginx and haproxy, as reverse proxies, to our server. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { it } from "../it.ts";
import { connect, type HandshakeError, type ServeOptions, type Server } from "../../mod.ts";
import { pattern } from "../bytes.ts";
import { portOf, rejection, until, withServer } from "../support.ts";
import { type Peer, PEERS, unlessThere } from "./peers.ts";
import { HOST } from "../ports.ts";
import { HAPROXY, NGINX, withProxy } from "./proxy.ts";

interface Front {
  url: string;
  server: Server;
}

/** Runs a test with a proxy in front of an echo. */
async function withFront(
  peer: Peer,
  options: ServeOptions,
  run: (front: Front) => Promise<void>,
): Promise<void> {
  await withServer(options, async (server) => {
    const front = peer === PEERS.nginx ? NGINX : HAPROXY;
    await withProxy(front, portOf(server), (port) => run({ url: `ws://${HOST}:${port}/`, server }));
  });
}

for (const peer of [PEERS.nginx, PEERS.haproxy]) {
  const { skip } = unlessThere(peer);
  const title = `${peer.name} in front of the server`;

  describe(title, () => {
    it(`${title}: messages of each size, and our Close`, { skip }, async () => {
      await withFront(peer, { protocols: ["chat"] }, async ({ url }) => {
        const ws = await connect(url, { protocols: ["chat"] });
        assert.equal(ws.protocol, "chat");
        for (const size of [0, 1, 125, 126, 65535, 65536, 1048576]) {
          const message = pattern(size);
          await ws.send(message);
          const got = await ws.receive() as Uint8Array;
          assert.equal(got.length, size);
          assert.ok(got.every((byte, i) => byte === message[i]));
        }
        assert.equal(typeof await ws.ping(), "number");
        const info = { closeCode: 3000, reason: "r" };
        assert.deepEqual(await ws.close(info), info);
      });
    });

    it(`${title}: the server's Close, and cuts of both sides`, { skip }, async () => {
      await withFront(peer, {}, async ({ url, server }) => {
        const only = async () => {
          await until(() => server.connections.size === 1);
          return [...server.connections][0];
        };
        const first = await connect(url);
        (await only()).close({ closeCode: 4001, reason: "bye" });
        assert.deepEqual(await first.closed, { closeCode: 4001, reason: "bye" });
        await until(() => server.connections.size === 0);
        const second = await connect(url);
        (await only()).terminate();
        assert.equal(
          (await rejection<Error & { closeCode: number }>(second.closed)).closeCode,
          1006,
        );
        await until(() => server.connections.size === 0);
        const third = await connect(url);
        await only();
        third.terminate();
        await until(() => server.connections.size === 0);
      });
    });

    it(`${title}: plain HTTP, and a refusal`, { skip }, async () => {
      const onRequest = ({ url }: Request) =>
        url.endsWith("/health")
          ? new Response("OK")
          : url.endsWith("/no")
          ? new Response("no", { status: 403, headers: { "X-Why": "because" } })
          : undefined;
      await withFront(peer, { onRequest }, async ({ url }) => {
        const response = await fetch(`${url.replace("ws:", "http:")}health`);
        assert.deepEqual([response.status, await response.text()], [200, "OK"]);
        const error = await rejection<HandshakeError>(connect(`${url}no`));
        assert.equal(error.response!.status, 403);
        assert.equal(error.response!.headers.get("x-why"), "because");
        assert.equal(await new Response(error.response!.body).text(), "no");
        await (await connect(url)).close();
      });
    });

    it(`${title}: a client that does not read holds the server back`, { skip }, async () => {
      let sent = 0;
      const total = 256;
      await withFront(peer, { pingInterval: 0 }, async ({ url, server }) => {
        const ws = await connect(url, { pingInterval: 0 });
        await until(() => server.connections.size === 1);
        const [theirs] = server.connections;
        const message = new Uint8Array(262_144);
        const sending = (async () => {
          for (; sent < total; sent++) await theirs.send(message);
        })();
        await until(() => theirs.bufferedAmount > 0);
        assert.ok(sent < total);
        for (let i = 0; i < total; i++) assert.equal((await ws.receive()).length, message.length);
        await sending;
        await ws.close();
      });
    });
  });
}
