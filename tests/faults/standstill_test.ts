import { after, before, describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, serve, type ServeOptions } from "../../mod.ts";
import { certificates } from "../certificates.ts";
import { type Child, withPrograms } from "../programs.ts";
import { portOf, turn, upgradeRequest } from "../support.ts";

const TIMEOUT = 300;

/** Blocks the event loop. */
function standStill(duration: number): void {
  const end = performance.now() + duration;
  while (performance.now() < end);
}

const SERVER = `
  import { serve } from "sluice";
  const onRequest = async () => {
    console.log("asked");
    await new Promise((resolve) => setTimeout(resolve, 100));
  };
  const server = await serve({ onRequest }, (ws) => ws.readable.pipeTo(ws.writable));
  console.log("port", server.address.port);
`;

/** A program that connects to `PORT`, waits, and then sends the rest of `REQUEST` over `PROTOCOL`. */
const CLIENT = `
  import { connect } from "node:net";
  import { connect as connectTls } from "node:tls";
  import process from "node:process";
  const { PORT, PROTOCOL, REQUEST } = process.env;
  const [begin, end] = [REQUEST.slice(0, 20), REQUEST.slice(20)];
  const socket = connect({ host: "127.0.0.1", port: Number(PORT) }, () => {
    if (PROTOCOL === "ws") socket.write(begin);
    console.log("begun");
    setTimeout(() => PROTOCOL === "ws" ? ask(socket, end) : askByTls(), 100);
  });
  socket.on("error", (error) => console.log("failed", error.message));
  function askByTls() {
    const secure = connectTls({ socket, rejectUnauthorized: false }, () => ask(secure, REQUEST));
    secure.on("error", (error) => console.log("failed", error.message));
    secure.on("close", () => console.log("closed"));
  }
  function ask(socket, text) {
    socket.on("data", (chunk) => console.log("answer", String(chunk).split("\\r\\n")[0]));
    socket.on("end", () => console.log("ended"));
    socket.write(text);
  }
`;

describe("H8 What has arrived at a socket during a standstill is read first", () => {
  let url: string;
  let server: Child;
  let stop: () => void;
  let stopped: Promise<void>;

  before(() =>
    new Promise<void>((resolve, reject) => {
      stopped = withPrograms(async (start) => {
        server = await start("server.mts", SERVER);
        const [, port] = await server.printed(/port (\d+)/);
        url = `ws://127.0.0.1:${port}`;
        resolve();
        await new Promise<void>((resolve) => stop = resolve);
      });
      stopped.catch(reject);
    })
  );

  after(async () => {
    stop();
    await stopped;
  });

  for (const standstill of [TIMEOUT, 4 * TIMEOUT]) {
    it(`H8 ${standstill} ms while a client connects, and while it closes`, async () => {
      server.stdout = "";
      const opening = connect(url, { openTimeout: TIMEOUT, closeTimeout: TIMEOUT });
      await server.printed(/asked/);
      standStill(standstill);
      const ws = await opening;
      const closing = ws.close({ closeCode: 1000 });
      await turn();
      standStill(standstill);
      assert.deepEqual(await closing, { closeCode: 1000, reason: "" });
      await ws.closed;
    });

    for (const PROTOCOL of ["ws", "wss"]) {
      it(`H8 ${standstill} ms while a client of a server connects, ${PROTOCOL}`, async () => {
        const tls = PROTOCOL === "wss" ? (await certificates()).leaf : undefined;
        const options: ServeOptions = { openTimeout: TIMEOUT, tls };
        const listening = await serve(options, (ws) => ws.readable.pipeTo(ws.writable));
        await withPrograms(async (start) => {
          const env = { PORT: String(portOf(listening)), PROTOCOL, REQUEST: upgradeRequest() };
          const child = await start("client.mts", CLIENT, { env });
          await child.printed(/begun/);
          standStill(standstill);
          const [, answer] = await child.printed(/(answer.*|failed.*|ended|closed)/);
          assert.equal(answer, "answer HTTP/1.1 101 Switching Protocols");
        });
        await listening.shutdown();
      });
    }
  }
});
