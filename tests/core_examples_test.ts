import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, type HandshakeError } from "../mod.ts";
import { readSource, withPrograms } from "./programs.ts";
import { portOf, RawSocket, rejection, until, upgradeRequest, withServer } from "./support.ts";

const SERVER = await readSource("examples/core_server.ts");
const CLIENT = await readSource("examples/core_client.ts");

describe("The examples of the core and a bare socket", () => {
  it("examples/core_client.ts and core_server.ts understand each other", async () => {
    await withPrograms(async (start) => {
      const server = await start("core_server.ts", SERVER.replaceAll("8080", "0"));
      const [, port] = await server.printed(/port: (\d+)/);
      const outputs: [path: string, output: string][] = [
        ["/echo", "received: Hello, World\nclosed: 1000 done\n"],
        ["/other", "refused: 404\n"],
      ];
      for (const [path, output] of outputs) {
        const program = CLIENT.replaceAll("8080", port).replaceAll("/echo", path);
        const client = await start("core_client.ts", program);
        assert.equal(await client.exited, 0, client.stderr);
        assert.equal(client.stdout, output);
      }
    });
  });

  it("examples/core_client.ts understands this library's server, refusals with a body too", async () => {
    await withPrograms(async (start) => {
      const onRequest = ({ url }: Request) =>
        url.endsWith("/no") ? new Response("Not here", { status: 410 }) : undefined;
      await withServer({ onRequest }, async (server) => {
        const client = CLIENT.replaceAll("8080", `${portOf(server)}`);
        const echo = await start("core_client.ts", client);
        assert.equal(await echo.exited, 0, echo.stderr);
        assert.equal(echo.stdout, "received: Hello, World\nclosed: 1000 done\n");
        const refused = await start("core_client.ts", client.replaceAll("/echo", "/no"));
        assert.equal(await refused.exited, 0, refused.stderr);
        assert.match(refused.stdout, /^refused: 410\nNot here\n/);
      });
    });
  });

  it("examples/core_server.ts echoes messages of this library and refuses wrong input", async () => {
    await withPrograms(async (start) => {
      const server = await start("core_server.ts", SERVER.replaceAll("8080", "0"));
      const [, port] = await server.printed(/port: (\d+)/);
      const ws = await connect(`ws://127.0.0.1:${port}/echo`, { protocols: ["a"] });
      assert.equal(ws.protocol, "a");
      const large = new Uint8Array(1_000_000).fill(7);
      const sent = Promise.all(Array.from({ length: 8 }, () => ws.send(large)));
      for (let i = 0; i < 8; i++) assert.deepEqual(await ws.receive(), large);
      await sent;
      assert.equal((await ws.close({ closeCode: 4000 })).closeCode, 4000);
      const refused = await rejection<HandshakeError>(connect(`ws://127.0.0.1:${port}/other`));
      assert.equal(refused.response?.status, 404);
      const answers: [bytes: string, answer: RegExp][] = [
        ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", /^HTTP\/1.1 426 .*Content-Length: 0\r\n/s],
        [upgradeRequest({}, "GET /echo HTTP/1.1") + "\x83\x00", /^HTTP\/1.1 101 .*\x88/s],
      ];
      for (const [bytes, answer] of answers) {
        const raw = await RawSocket.connect(Number(port));
        raw.write(bytes);
        await until(() => raw.ended);
        assert.match(raw.text, answer);
        await raw.close();
      }
      await server.printed(
        /refused: The request has no upgrade[^]*refused: The frame has the unknown opcode/,
      );
    });
  });
});
