/** Clients that open a connection and send nothing: how many of them a server holds. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { connect as connectSocket, type Socket } from "node:net";
import process from "node:process";
import { it, knownLimit, notApplicable } from "../it.ts";
import { connect, type HandshakeError, serve, type ServeOptions, type Server } from "../../mod.ts";
import { certificates } from "../certificates.ts";
import { countSockets } from "../resources.ts";
import { echo, portOf, RawSocket, rejection, rest, still, until } from "../support.ts";

const onDeno = "Deno" in globalThis;
const onLinux = process.platform === "linux";
const SILENT = 60;

/** Runs a test with a server over TLS, and passes on the number of sockets that the server holds. */
async function withTls(
  options: ServeOptions,
  run: (server: Server, dial: () => Socket, held: () => number) => Promise<unknown>,
): Promise<void> {
  const before = countSockets();
  const server = await serve({ tls: (await certificates()).leaf, ...options }, echo);
  const sockets: Socket[] = [];
  const dial = () => {
    const socket = connectSocket({ port: portOf(server), host: "127.0.0.1", allowHalfOpen: true });
    socket.on("error", () => {}).on("close", () => sockets.splice(sockets.indexOf(socket), 1));
    socket.resume();
    sockets.push(socket);
    return socket;
  };
  const listener = 1;
  try {
    await run(server, dial, () => countSockets() - before - sockets.length - listener);
  } finally {
    for (const socket of [...sockets]) socket.destroy();
    await server.shutdown();
  }
  await until(() => countSockets() <= before);
}

async function open(server: Server) {
  const { ca } = await certificates();
  return await connect(`wss://127.0.0.1:${portOf(server)}/`, { tls: { ca }, openTimeout: 20_000 });
}

const NOT_COUNTED = !onLinux && notApplicable("nothing counts sockets here");

describe(
  "B6 silent clients of a server with TLS",
  { skip: NOT_COUNTED },
  () => {
    for (const max of [1, 5, 20]) {
      it(`B6 at most ${max} of them are held where maxConnections is ${max}`, async () => {
        await withTls({ maxConnections: max, openTimeout: 60_000 }, async (_, dial, held) => {
          for (let i = 0; i < SILENT; i++) dial();
          await still(held);
          assert.equal(held(), max);
        });
      });
    }

    const perAddress = {
      skip: onDeno && knownLimit("Deno does not count a handshake by address"),
    };
    it("B6 they count towards maxConnectionsPerAddress", perAddress, async () => {
      await withTls(
        { maxConnectionsPerAddress: 4, openTimeout: 60_000 },
        async (_, dial, held) => {
          for (let i = 0; i < SILENT; i++) dial();
          await still(held);
          assert.equal(held(), 4);
        },
      );
    });

    it("B6 connections that end make room", async () => {
      await withTls({ maxConnections: 3, openTimeout: 60_000 }, async (server, dial, held) => {
        for (let round = 0; round < 3; round++) {
          const sockets = Array.from({ length: 10 }, dial);
          await still(held);
          for (const socket of sockets) round === 1 ? socket.destroy() : socket.resetAndDestroy();
          const all = [];
          // Until the server has noticed.
          while (all.length < 3) {
            const ws = await open(server).catch((error: HandshakeError) => error);
            if (ws instanceof Error) await rest();
            else all.push(ws);
          }
          assert.equal((await rejection<HandshakeError>(open(server))).response?.status, 503);
          await Promise.all(all.map((ws) => ws.close()));
        }
      });
    });

    it("B6 connections that do not speak TLS make room", async () => {
      await withTls({ maxConnections: 2 }, async (server, dial) => {
        for (let i = 0; i < 20; i++) {
          const socket = dial();
          socket.end("GET / HTTP/1.1\r\n\r\n");
          await until(() => socket.destroyed);
        }
        let ws;
        while (ws === undefined) ws = await open(server).catch(() => void rest());
        await ws.close();
      });
    });

    const late = { skip: onDeno && knownLimit("Deno keeps them until they leave") };
    it("B6 they are cut after openTimeout, and make room", late, async () => {
      await withTls({ maxConnections: 2, openTimeout: 1500 }, async (server, dial, held) => {
        for (let i = 0; i < SILENT; i++) dial();
        await until(() => held() === 2);
        await until(() => held() === 0);
        const all = [await open(server), await open(server)];
        assert.equal((await rejection<HandshakeError>(open(server))).response?.status, 503);
        await Promise.all(all.map((ws) => ws.close()));
      });
    });

    it("B6 successful handshakes free their places", async () => {
      await withTls({ maxConnections: 2 }, async (server) => {
        for (let i = 0; i < 10; i++) {
          let ws;
          while (ws === undefined) ws = await open(server).catch(() => void rest());
          await ws.close();
        }
      });
    });

    it("B6 shutdown() ends while they wait", async () => {
      await withTls({ maxConnections: 2, openTimeout: 60_000 }, async (server, dial, held) => {
        for (let i = 0; i < 10; i++) dial();
        await still(held);
        await server.shutdown();
      });
    });
  },
);

describe("B6 clients that are told that there is no place", () => {
  it("B6 some are told so at a time, and the others are cut", { skip: NOT_COUNTED }, async () => {
    const before = countSockets();
    const server = await serve({ maxConnections: 0 }, echo);
    const raws: RawSocket[] = [];
    for (let i = 0; i < 130; i++) raws.push(await RawSocket.connect(portOf(server)));
    await until(() => raws.every(({ ended, closed }) => ended || closed));
    await still(countSockets);
    const told = raws.filter(({ text }) => text.startsWith("HTTP/1.1 503 "));
    assert.equal(told.length, 100);
    for (const { socket } of raws) socket.destroy();
    await server.shutdown();
    await until(() => countSockets() <= before);
  });
});
