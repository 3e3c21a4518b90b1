/** Our client through tinyproxy and microsocks, to our server. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "../it.ts";
import { connect, type HandshakeError, serve, type Server } from "../../mod.ts";
import { pattern } from "../bytes.ts";
import { certificates } from "../certificates.ts";
import { echo, portOf, rejection } from "../support.ts";
import { commandOf, type Peer, PEERS, unlessThere } from "./peers.ts";
import { accepts, freePort, HOST } from "../ports.ts";

function tinyproxy(port: number, ports: readonly number[], user: boolean): string {
  return [
    `Port ${port}`,
    `Listen ${HOST}`,
    "Timeout 60",
    "LogLevel Critical",
    ...ports.map((allowed) => `ConnectPort ${allowed}`),
    ...(user ? ["BasicAuth ada lovelace"] : []),
    "",
  ].join("\n");
}

interface Ends {
  /** The port of the proxy. */
  port: number;
  plain: Server;
  secure: Server;
  ca: string;
}

/** Runs a test with a proxy and two servers. */
async function withPeer(
  peer: Peer,
  user: boolean,
  run: (ends: Ends) => Promise<void>,
): Promise<void> {
  const { ca, leaf } = await certificates();
  const [plain, secure] = await Promise.all([serve({}, echo), serve({ tls: leaf }, echo)]);
  const folder = await mkdtemp(join(tmpdir(), "sluice-proxy-"));
  const port = await freePort();
  const file = join(folder, "proxy.conf");
  await writeFile(file, tinyproxy(port, [portOf(plain), portOf(secure)], user));
  const options = peer === PEERS.tinyproxy
    ? ["-d", "-c", file]
    : ["-i", HOST, "-p", `${port}`, ...(user ? ["-u", "ada", "-P", "lovelace"] : [])];
  const [command, ...args] = commandOf(peer);
  const proxy = spawn(command, [...args, ...options], { stdio: "ignore" });
  const gone = once(proxy, "exit");
  try {
    while (!await accepts(port)) assert.equal(proxy.exitCode, null, `${peer.name} has ended`);
    await run({ port, plain, secure, ca });
  } finally {
    proxy.kill("SIGKILL");
    await gone;
    await Promise.all([plain.shutdown(), secure.shutdown()]);
    await rm(folder, { recursive: true });
  }
}

const KINDS: [peer: Peer, scheme: string, refused: Partial<HandshakeError>][] = [
  [PEERS.tinyproxy, "http", { code: "proxy" }],
  [PEERS.microsocks, "socks5", { code: "proxy", reply: 5 }],
];

for (const [peer, scheme, refused] of KINDS) {
  const { skip } = unlessThere(peer);
  describe(`${peer.name} as proxy`, () => {
    for (const user of [false, true]) {
      const title = `${peer.name} as proxy${user ? " that asks who we are" : ""}`;
      it(`${title}: ws and wss, messages of each size`, { skip }, async () => {
        await withPeer(peer, user, async ({ port, plain, secure, ca }) => {
          const proxy = `${scheme}://${user ? "ada:lovelace@" : ""}${HOST}:${port}`;
          const urls = [`ws://localhost:${portOf(plain)}`, `wss://localhost:${portOf(secure)}`];
          for (const url of [...urls, urls[0].replace("localhost", HOST)]) {
            const options = { proxy, tls: { ca }, maxMessageSize: Infinity };
            const ws = await connect(url, options);
            for (const size of [0, 125, 126, 65536, 1048576]) {
              const message = pattern(size);
              await ws.send(message);
              const got = await ws.receive() as Uint8Array;
              assert.equal(got.length, size);
              assert.ok(got.every((byte, i) => byte === message[i]));
            }
            assert.equal((await ws.close({ closeCode: 3000 })).closeCode, 3000);
          }
        });
      });
    }

    it(`${peer.name} as proxy refuses unknown users`, { skip }, async () => {
      await withPeer(peer, true, async ({ port, plain }) => {
        for (const who of ["", "ada:byron@"]) {
          const proxy = `${scheme}://${who}${HOST}:${port}`;
          const connecting = connect(`ws://${HOST}:${portOf(plain)}`, { proxy });
          const { code, response } = await rejection<HandshakeError>(connecting);
          assert.equal(code, "proxy");
          // The proxy has asked for a password, or refused the one it received.
          if (scheme === "http") assert.ok([401, 407].includes(response!.status));
        }
      });
    });

    it(`${peer.name} as proxy does not reach a server that is gone`, { skip }, async () => {
      await withPeer(peer, false, async ({ port, plain }) => {
        const url = `ws://${HOST}:${portOf(plain)}`;
        await plain.shutdown();
        const connecting = connect(url, { proxy: `${scheme}://${HOST}:${port}` });
        const error = await rejection<HandshakeError>(connecting);
        for (const [name, value] of Object.entries(refused)) {
          assert.equal(error[name as keyof HandshakeError], value);
        }
        if (scheme === "http") assert.ok(error.response!.status >= 500);
      });
    });
  });
}
