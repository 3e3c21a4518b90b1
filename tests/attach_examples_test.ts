import { describe } from "node:test";
import assert from "node:assert/strict";
import { it, notApplicable } from "./it.ts";
import { connect, type HandshakeError } from "../mod.ts";
import { insideRepository, readSource, withPrograms } from "./programs.ts";
import { echo, rejection, withServer } from "./support.ts";

const skip = "Deno" in globalThis ? false : notApplicable("only Deno has Deno.serve()");

const examples: [name: string, greeting: string, skip?: string | false][] = [
  ["http.ts", "Hello from node:http"],
  ["express.ts", "Hello from Express"],
  ["fastify.ts", "Hello from Fastify"],
  ["hono.ts", "Hello from Hono"],
  ["deno_serve.ts", "Hello from Deno.serve", skip],
];

describe("The examples of servers", () => {
  for (const [name, greeting, skip = false] of examples) {
    it(
      `examples/${name} serves HTTP and WebSocket on one port, and shuts down`,
      { skip },
      async () => {
        const program = (await readSource(`examples/${name}`)).replaceAll("8080", "0");
        await withPrograms(async (start) => {
          const server = await start(name, program);
          const [, port] = await server.printed(/port: (\d+)/);
          const response = await fetch(`http://127.0.0.1:${port}/`, {
            headers: { Connection: "close" },
          });
          assert.equal(await response.text(), greeting);
          const ws = await connect(`ws://127.0.0.1:${port}/echo`);
          await ws.send("Hello");
          assert.equal(await ws.receive(), "Hello");
          server.stop();
          assert.equal((await ws.closed).closeCode, 1001);
          await server.printed(/closed/);
          // The exit code is not checked: Deno ends by the signal even if a listener handled it.
          await server.exited;
        }, await insideRepository());
      },
    );
  }

  for (const name of ["fastify.ts", "hono.ts"]) {
    it(`examples/${name} lets those in to whom the route answers 204`, async () => {
      const program = (await readSource(`examples/${name}`)).replaceAll("8080", "0");
      await withPrograms(async (start) => {
        const server = await start(name, program);
        const [, port] = await server.printed(/port: (\d+)/);
        const url = `ws://127.0.0.1:${port}/private`;
        for (const token of ["", "Bearer wrong"]) {
          const headers = { Authorization: token };
          const error = await rejection<HandshakeError>(connect(url, { headers }));
          assert.ok([400, 401].includes(error.status!));
        }
        const ws = await connect(url, { headers: { Authorization: "Bearer secret" } });
        await ws.send("Hello");
        assert.equal(await ws.receive(), "Hello");
        await ws.close();
        server.stop();
        await server.exited;
      }, await insideRepository());
    });
  }

  it("examples/metrics.ts counts for Prometheus", async () => {
    const program = (await readSource("examples/metrics.ts")).replaceAll("8080", "0");
    await withPrograms(async (start) => {
      const child = await start("metrics.ts", program);
      const [, port] = await child.printed(/port: (\d+)/);
      const ws = await connect(`ws://127.0.0.1:${port}`);
      await ws.send("Hello");
      assert.equal(await ws.receive(), "Hello");
      const headers = { Connection: "close" };
      const read = async () => {
        const response = await fetch(`http://127.0.0.1:${port}/metrics`, { headers });
        return await response.text();
      };
      await read();
      await rejection(connect(`ws://127.0.0.1:${port}/metrics`));
      // A refusal counts once its client has left.
      let text = await read();
      for (let i = 0; i < 50 && !text.includes("websocket_refused"); i++) text = await read();
      assert.match(text, /^websocket_open 1$/m);
      assert.match(text, /^websocket_answered_total [1-9]\d*$/m);
      assert.match(text, /^websocket_refused_total\{code="rejected"\} 1$/m);
      assert.match(text, /^websocket_refused_by_status_total\{status="200"\} 1$/m);
      assert.match(text, /^websocket_messages_received_total 1$/m);
      assert.match(text, /^websocket_frames_sent_total 1$/m);
      assert.match(text, /^websocket_compressed_bytes_sent_total 0$/m);
      await ws.close();
      child.stop();
      await child.exited;
    }, await insideRepository());
  });

  it("examples/gateway.ts lets those through who have logged in", async () => {
    const program = (await readSource("examples/gateway.ts")).replaceAll("8080", "0");
    let user: string | null = null;
    await withServer({}, async (backend) => {
      await withPrograms(async (start) => {
        const child = await start("gateway.ts", program, { env: { BACKEND: backend.url! } });
        const [, port] = await child.printed(/port: (\d+)/);
        const url = `ws://127.0.0.1:${port}/chat`;
        const refused = await rejection<HandshakeError>(connect(url));
        assert.equal(refused.status, 401);
        const login = await fetch(`http://127.0.0.1:${port}/login/ada`, {
          method: "POST",
          headers: { Connection: "close" },
        });
        assert.equal(await login.text(), "Welcome");
        const [cookie] = login.headers.get("set-cookie")!.split(";");
        const ws = await connect(url, { headers: { Cookie: cookie } });
        await ws.send("Hello");
        assert.equal(await ws.receive(), "Hello");
        assert.equal(user, "ada");
        assert.deepEqual(await ws.close({ closeCode: 4000 }), { closeCode: 4000, reason: "" });
        child.stop();
        await child.exited;
      }, await insideRepository());
    }, (ws) => {
      user = ws.request.headers.get("x-user");
      return echo(ws);
    });
  });
});
