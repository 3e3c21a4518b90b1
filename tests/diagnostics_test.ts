/** The log of NODE_DEBUG and SLUICE_DEBUG, and the channels of node:diagnostics_channel. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import process from "node:process";
import { type Address, connect, serve } from "../mod.ts";
import { pair } from "../lib/testing.ts";
import { it, notApplicable } from "./it.ts";
import { type ChildOptions, readSource, withPrograms } from "./programs.ts";
import { RawSocket, rejection } from "./support.ts";

const IS_DENO = process.versions.deno !== undefined;

/** The log of a program, without the parts that differ between runs. */
async function logOf(program: string, options: ChildOptions): Promise<string[]> {
  let log = "";
  await withPrograms(async (start) => {
    const child = await start("program.mts", program, options);
    assert.equal(await child.exited, 0, child.stderr);
    log = child.stderr;
  });
  return linesOf(log);
}

function linesOf(log: string): string[] {
  return log.trim().split("\n").filter((line) => line.startsWith("SLUICE ")).map((line) =>
    line.replace(/^SLUICE \d+/, "SLUICE").replace(/127\.0\.0\.1:\d+/g, "127.0.0.1:PORT")
      .replace(/(-Key|-Accept): [^;]+/g, "$1: KEY")
  );
}

const ON = { NODE_DEBUG: "http,sluice", SLUICE_DEBUG: "" };

describe("The log", () => {
  it("The log is what docs/guides/debugging.md shows", async () => {
    const page = await readSource("docs/guides/debugging.md");
    const [, program, shown] = page.match(
      /```ts\n\/\/ hello\.ts\n([^]*?)```\n\n```console\n([^]*?)```/,
    )!;
    const free = program.replace("port: 8080", "port: 0").replace(
      /"ws:\/\/ada:pass@127\.0\.0\.1:8080([^"]*)"/,
      "`ws://ada:pass@127.0.0.1:${server.port}$1`",
    );
    const lines = await logOf(free, { env: ON });
    // Both ends are in one process, and their order is not fixed.
    assert.deepEqual(lines.toSorted(), linesOf(shown).toSorted());
    assert.ok(lines.length > 15);
  });

  it("The log hides credentials, escapes control characters, and is one line each", async () => {
    const lines = await logOf(
      `import { connect, serve } from "sluice";
      const server = await serve({ port: 0, origins: [null] }, async (ws) => {
        for await (const message of ws) await ws.send(message);
      });
      const { port } = server;
      const secrets = { Cookie: "a=hush", "X-Token": "hush", "Proxy-Authorization": "hush" };
      const ws = await connect(\`ws://hush:hush@127.0.0.1:\${port}/a?token=hush&hush\`, { headers: secrets });
      await ws.send("a\\nb\\u001b[31m\\u202e\\u0085");
      await ws.receive();
      await ws.send(new Uint8Array(100));
      await ws.receive();
      await ws.send("x".repeat(1000));
      await ws.receive();
      const options = { origin: "https://evil.example" };
      await connect(\`ws://hush:hush@127.0.0.1:\${port}/b?token=hush\`, options).catch(() => {});
      ws.terminate();
      await server.shutdown();`,
      { env: { NODE_DEBUG: "", SLUICE_DEBUG: "1" } },
    );
    const log = lines.join("\n");
    assert.doesNotMatch(log, /hush/);
    assert.match(log, /request GET \/a\?token=\(hidden\)&\(hidden\);/);
    assert.match(log, /Cookie: \(hidden\); X-Token: \(hidden\)/);
    assert.match(log, /out text 13 bytes: "a\\nb\\x1b\[31m\\u202e\\x85"/);
    assert.match(log, /out binary 100 bytes: (?:00 ){16}\.\.\./);
    assert.match(log, /out text 1000 bytes: "x{80}"\.\.\./);
    assert.match(
      log,
      /SLUICE: refused GET http:\/\/127\.0\.0\.1:PORT\/b\?token=\(hidden\) from 127\.0\.0\.1:PORT with 403/,
    );
    assert.match(
      log,
      /SLUICE: cannot connect to ws:\/\/127\.0\.0\.1:PORT\/b: HandshakeError \(status\)/,
    );
    assert.match(log, /failed: WebSocketError \(terminated\): The connection was terminated/);
    // deno-lint-ignore no-control-regex
    assert.doesNotMatch(log, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/);
  });

  it("A plain request that onRequest answers is logged as answered", async () => {
    const lines = await logOf(
      `import { serve } from "sluice";
      const onRequest = () => new Response("up\\n");
      const server = await serve({ port: 0, onRequest }, () => {});
      const { port } = server;
      await (await fetch(\`http://127.0.0.1:\${port}/a\`, { headers: { Connection: "close" } })).text();
      await server.shutdown();`,
      { env: { NODE_DEBUG: "", SLUICE_DEBUG: "1" } },
    );
    const log = lines.join("\n");
    assert.match(log, /SLUICE: answered GET http:\/\/127\.0\.0\.1:PORT\/a with 200$/m);
    assert.doesNotMatch(log, /refused/);
  });

  it("The log of a native WebSocket has no handshake, which only the platform knows", async () => {
    const lines = await logOf(
      `import { fromWebSocket, serve } from "sluice";
      const server = await serve({ port: 0 }, (ws) => ws.discard());
      const ws = await fromWebSocket(new WebSocket(server.url));
      await ws.close({ closeCode: 1000 });
      await server.shutdown();`,
      { env: ON },
    );
    const [, number] = lines.find((line) => line.endsWith("over a native WebSocket"))!.split(" ");
    const own = lines.filter((line) => line.startsWith(`SLUICE: ${number} `));
    assert.deepEqual(own, [
      `SLUICE: ${number} connection over a native WebSocket`,
      `SLUICE: ${number} closed 1000`,
    ]);
  });

  it("The log shows no subprotocol but the chosen one, and no unknown Sec-WebSocket field", async () => {
    const lines = await logOf(
      `import { connect, serve } from "sluice";
      const server = await serve({ port: 0, protocols: ["chat"] }, (ws) => ws.readable.pipeTo(ws.writable));
      const headers = { "Sec-WebSocket-Extra": "hush", "Content-Token": "hush" };
      const ws = await connect(server.url, { protocols: ["bearer.hush", "chat"], headers });
      await ws.close();
      await connect(server.url, { protocols: ["bearer.hush"], maxRedirects: 0 }).catch(() => {});
      await connect(server.url, { protocols: ["bearer hush"] }).catch(() => {});
      await server.shutdown();`,
      { env: ON },
    );
    const log = lines.join("\n");
    assert.doesNotMatch(log, /hush/);
    assert.match(log, /#1 in request .*; Sec-WebSocket-Protocol: \(hidden\)/);
    assert.match(log, /#2 out request .*; Sec-WebSocket-Protocol: \(hidden\)/);
    assert.match(log, /#1 out response .*; Sec-WebSocket-Protocol: chat/);
    assert.match(log, /#2 in response .*; Sec-WebSocket-Protocol: chat/);
    assert.match(log, /Sec-WebSocket-Extra: \(hidden\); Content-Token: \(hidden\)/);
    assert.match(log, /Sec-WebSocket-Version: 13;.*; Sec-WebSocket-Extensions: permessage-deflate/);
  });

  it("The log does not change what a call rejects with", async () => {
    const lines = await logOf(
      `import { connect } from "sluice";
      const thrower = { get message() { throw new Error("no"); } };
      const values = [Object.create(null), { message: Symbol("s") }, thrower, Symbol("t"), { name: Symbol("n") }];
      for (const reason of values) {
        const caught = await connect("ws://127.0.0.1:1", { signal: AbortSignal.abort(reason) }).catch((e) => e);
        console.error("SLUICE", caught === reason);
      }`,
      { env: ON },
    );
    assert.equal(lines.filter((line) => line.endsWith(" true")).length, 5, lines.join("\n"));
    assert.equal(lines.filter((line) => /cannot connect to/.test(line)).length, 5);
    assert.match(lines.join("\n"), /Symbol\(s\)/);
  });

  const program = `import { pair } from "sluice/testing";
    const [client] = await pair();
    await client.close();`;

  for (
    const env of [{ NODE_DEBUG: "", SLUICE_DEBUG: "" }, {
      NODE_DEBUG: "sluic,slu",
      SLUICE_DEBUG: "0",
    }]
  ) {
    it(`The log is off with ${JSON.stringify(env)}`, async () => {
      assert.deepEqual(await logOf(program, { env }), []);
    });
  }

  it("Without the permission to read the variable, the log is off, and Deno does not ask", {
    skip: IS_DENO ? false : notApplicable("only Deno has permissions"),
  }, async () => {
    const options = { env: ON, flags: ["--deny-env"] };
    assert.deepEqual(await logOf(program, options), []);
  });
});

/** Runs a function, and returns the messages on all channels with the names of the channels. */
async function told(run: () => Promise<unknown>): Promise<[name: string, message: unknown][]> {
  const messages: [string, unknown][] = [];
  const names = [
    "connection.open",
    "connection.close",
    "connection.error",
    "server.refused",
    "client.failed",
  ];
  const listen = (message: unknown, name: string | symbol) =>
    messages.push([String(name), message]);
  for (const name of names) subscribe(`sluice.${name}`, listen);
  await run();
  for (const name of names) unsubscribe(`sluice.${name}`, listen);
  return messages;
}

describe("The channels", () => {
  it("Both ends of a connection are reported, with their close codes", async () => {
    let ends: unknown[] = [];
    const messages = await told(async () => {
      const [client, server] = ends = await pair();
      await (client as typeof server).close({ closeCode: 4000, reason: "bored" });
      await server.closed;
    });
    assert.deepEqual(messages.map(([name]) => name).sort(), [
      "sluice.connection.close",
      "sluice.connection.close",
      "sluice.connection.open",
      "sluice.connection.open",
    ]);
    for (const [name, message] of messages) {
      const { connection, ...rest } = message as { connection: unknown };
      assert.ok(ends.includes(connection));
      const isClose = name === "sluice.connection.close";
      assert.deepEqual(rest, isClose ? { closeCode: 4000, reason: "bored" } : {});
    }
  });

  it("A connection that fails is an error and a close", async () => {
    const messages = await told(async () => {
      const [client, server] = await pair();
      client.terminate();
      await rejection(server.closed);
      await rejection(client.closed);
      await new Promise((resolve) => setTimeout(resolve, 10));
    });
    const ended = messages.filter(([name]) => name !== "sluice.connection.open");
    assert.deepEqual(ended.map(([name]) => name).sort(), [
      "sluice.connection.close",
      "sluice.connection.close",
      "sluice.connection.error",
      "sluice.connection.error",
    ]);
  });

  it("A refused handshake is reported by the server and by the client", async () => {
    const messages = await told(async () => {
      const server = await serve({ port: 0, origins: [null] }, () => {});
      await rejection(connect(server.url!, { origin: "https://evil.example" }));
      await server.shutdown();
    });
    assert.deepEqual(messages.map(([name]) => name), [
      "sluice.server.refused",
      "sluice.client.failed",
    ]);
    const [[, refused], [, failed]] = messages as [string, { error: { code: string } }][];
    assert.equal(refused.error.code, "origin");
    const { request, remoteAddress } = refused as unknown as Record<string, unknown>;
    assert.ok(request instanceof Request);
    const { hostname, port } = remoteAddress as { hostname: string; port: number };
    assert.equal(hostname, "127.0.0.1");
    assert.ok(port > 0);
    assert.equal(failed.error.code, "status");
  });

  it("onRefused is told the address of the client", async () => {
    const addresses: (Address | undefined)[] = [];
    const server = await serve({
      port: 0,
      origins: [null],
      onRefused: (_error, _request, { remoteAddress }) => void addresses.push(remoteAddress),
    }, () => {});
    await rejection(connect(server.url!, { origin: "https://evil.example" }));
    const raw = await RawSocket.connect(server.port!);
    const { localPort } = raw.socket;
    raw.write("no request\r\n\r\n");
    await raw.close();
    await server.shutdown();
    assert.equal(addresses.length, 2);
    assert.equal(addresses[0]?.transport, "tcp");
    assert.deepEqual(addresses[1], { transport: "tcp", hostname: "127.0.0.1", port: localPort });
  });
});
