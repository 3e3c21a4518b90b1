import { describe } from "node:test";
import assert from "node:assert/strict";
import { it, notApplicable } from "./it.ts";
import { connect, type HandshakeError } from "../mod.ts";
import { insideRepository, readSource, withPrograms } from "./programs.ts";
import { rejection, until } from "./support.ts";

const skip = "URLPattern" in globalThis ? false : notApplicable("there is no URLPattern here");

describe("Routing", () => {
  it("examples/routing.ts finds its handlers by the path", { skip }, async () => {
    await withPrograms(async (start) => {
      const source = await readSource("examples/routing.ts");
      const server = await start("routing.ts", source.replaceAll("8080", "0"));
      const [, port] = await server.printed(/port: (\d+)/);
      const to = (path: string) => connect(`ws://127.0.0.1:${port}${path}`);
      const error = await rejection<HandshakeError>(to("/nowhere"));
      assert.equal(error.response?.status, 404);
      const echo = await to("/echo");
      await echo.send("a");
      assert.equal(await echo.receive(), "a");
      const [one, two, other] = await Promise.all([to("/rooms/x"), to("/rooms/x"), to("/rooms/y")]);
      // Who comes first is not known: each says so until the other has heard of it.
      const heard = two.receive();
      let done = false;
      heard.then(() => done = true);
      await until(() => {
        if (!done) void one.send("hello");
        return done;
      });
      assert.equal(await heard, "hello");
      assert.equal(other.stats.messagesReceived, 0);
      for (const ws of [echo, one, two, other]) await ws.close();
    }, await insideRepository());
  });
});
