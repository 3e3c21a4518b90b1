/** The examples that are small applications: each is used as its users would. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { it, notApplicable } from "./it.ts";
import { connect, type HandshakeError, type WebSocketError } from "../mod.ts";
import { type Child, insideRepository, readSource, withPrograms } from "./programs.ts";
import { rejection, until } from "./support.ts";

/** The size of an upload. `UPLOAD_MIB=1024` sends one of 1 GiB. */
const UPLOAD_MIB = Number(process.env.UPLOAD_MIB ?? 256);
/** Both ends need less than that, the runtime included, whatever the size. */
const MOST_MEMORY = 256 * 1024 ** 2;

/** Makes a file of which no two blocks are the same, and gives its checksum. */
async function makeFile(path: string): Promise<string> {
  const file = await open(path, "wx");
  const hash = createHash("sha256");
  const block = randomBytes(1024 ** 2);
  for (let i = 0; i < UPLOAD_MIB; i++) {
    block.writeUInt32BE(i);
    hash.update(block);
    await file.writeFile(block);
  }
  await file.close();
  return hash.digest("hex");
}

async function checksum(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

/** Starts an example on a free port, and gives the port. */
async function withExample(
  name: string,
  use: (port: string, server: Child) => Promise<void>,
): Promise<void> {
  await withPrograms(async (start) => {
    const source = await readSource(`examples/${name}`);
    const server = await start(name, source.replaceAll("8080", "0"));
    const [, port] = await server.printed(/port: (\d+)/);
    await use(port, server);
  }, await insideRepository());
}

const skip = "URLPattern" in globalThis ? false : notApplicable("there is no URLPattern here");

describe("The applications of examples/", () => {
  it("routing.ts finds its handlers by the path", { skip }, async () => {
    await withExample("routing.ts", async (port) => {
      const to = (path: string) => connect(`ws://127.0.0.1:${port}${path}`);
      const error = await rejection<HandshakeError>(to("/nowhere"));
      assert.equal(error.status, 404);
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
      assert.equal(one.stats.messagesReceived, 0);
      assert.equal(other.stats.messagesReceived, 0);
      for (const ws of [echo, one, two, other]) await ws.close();
    });
  });

  it("rooms.ts tells all members of a room, and a slow one has to leave", async () => {
    await withExample("rooms.ts", async (port, server) => {
      const to = (path: string) => connect(`ws://127.0.0.1:${port}${path}`);
      const error = await rejection<HandshakeError>(to("/"));
      assert.equal(error.status, 404);
      const ada = await to("/rooms/tea?name=ada");
      assert.equal(await ada.receive(), "ada has come, 1 here");
      const eve = await to("/rooms/coffee?name=eve");
      assert.equal(await eve.receive(), "eve has come, 1 here");
      const ben = await to("/rooms/tea?name=ben");
      assert.equal(await ada.receive(), "ben has come, 2 here");
      assert.equal(await ben.receive(), "ben has come, 2 here");
      await ben.send("Sugar?");
      assert.equal(await ada.receive(), "ben: Sugar?");
      // Ben reads no more. Ada writes and reads until the room has had enough.
      const line = "x".repeat(10_000);
      while (!server.stdout.includes("too slow: 1")) {
        await ada.send(line);
        assert.equal(await ada.receive(), `ada: ${line}`);
      }
      let reason: WebSocketError | undefined;
      while (reason === undefined) await ben.receive().catch((error) => reason = error);
      assert.equal(reason.closeCode, 1008);
      assert.equal(await ada.receive(), "ben has left, 1 here");
      assert.equal(eve.stats.messagesReceived, 1);
      for (const ws of [ada, eve]) await ws.close();
    });
  });

  it("sessions.ts lets those in who have logged in, until they log out", async () => {
    await withExample("sessions.ts", async (port) => {
      const site = `http://127.0.0.1:${port}`;
      const post = (path: string, body: string, headers: Record<string, string> = {}) =>
        fetch(site + path, { method: "POST", body, headers: { ...headers, Connection: "close" } });
      const url = `ws://127.0.0.1:${port}/chat`;
      const refused = await rejection<HandshakeError>(connect(url));
      assert.equal(refused.status, 401);
      const wrong = await post("/login", "user=ada&password=babbage");
      assert.equal(wrong.status, 403);
      assert.equal(wrong.headers.get("set-cookie"), null);
      await wrong.body?.cancel();
      const login = await post("/login", "user=ada&password=lovelace");
      assert.equal(await login.text(), "Welcome\n");
      const [Cookie] = login.headers.get("set-cookie")!.split(";");
      const elsewhere = { headers: { Cookie }, origin: "https://evil.example" };
      assert.equal((await rejection<HandshakeError>(connect(url, elsewhere))).status, 403);
      const ws = await connect(url, { headers: { Cookie }, origin: site });
      assert.equal(await ws.receive(), "Hello ada");
      await ws.send("Hello");
      assert.equal(await ws.receive(), "Hello");
      await (await post("/logout", "", { Cookie })).body?.cancel();
      assert.deepEqual(await ws.closed, { closeCode: 4401, reason: "logged out" });
      assert.equal(
        (await rejection<HandshakeError>(connect(url, { headers: { Cookie } }))).status,
        401,
      );
    });
  });

  it("upload.ts sends a file of any size in bounded memory, and shows how far it is", async () => {
    const folder = await mkdtemp(join(tmpdir(), "sluice-upload-"));
    try {
      const path = join(folder, "file");
      const sum = await makeFile(path);
      await withPrograms(async (start) => {
        const [server, client] = await Promise.all(
          ["upload_server.ts", "upload.ts"].map((name) => readSource(`examples/${name}`)),
        );
        const saving = await start("server.ts", server.replaceAll("8080", "0"), { args: [folder] });
        const [, port] = await saving.printed(/port: (\d+)/);
        const sending = await start("client.ts", client, {
          args: [path, `ws://127.0.0.1:${port}`],
        });
        let peak = 0;
        const watch = setInterval(async () => peak = await sending.peakMemory() ?? peak, 20);
        assert.equal(await sending.exited, 0, sending.stderr);
        clearInterval(watch);
        const lines = sending.stdout.trim().split("\n");
        const saved = lines.pop()!.replace("saved as ", "");
        assert.equal(lines.pop(), "100 %");
        assert.ok(lines.length >= UPLOAD_MIB / 16 - 1);
        assert.equal(await checksum(saved), sum);
        assert.ok(peak < MOST_MEMORY, `the client took ${peak} bytes`);
        const taken = await saving.peakMemory() ?? 0;
        assert.ok(taken < MOST_MEMORY, `the server took ${taken} bytes`);
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
