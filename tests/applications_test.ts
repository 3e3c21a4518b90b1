/** The examples that are small applications, used the way their users would use them. */
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
import { withBrowser } from "./interop/chromium.ts";
import { PEERS, unlessThere } from "./interop/peers.ts";
import { type Child, insideRepository, readSource, withPrograms } from "./programs.ts";
import { rejection, until } from "./support.ts";

/** The size of an upload, in MiB. `UPLOAD_MIB=1024` uploads 1 GiB. */
const UPLOAD_MIB = Number(process.env.UPLOAD_MIB ?? 256);
/** The most memory that each end may use, including the runtime, for an upload of any size. */
const MOST_MEMORY = 256 * 1024 ** 2;

/** Makes a file in which no two blocks are equal, and returns its checksum. */
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

function call(members: object): string {
  return JSON.stringify({ jsonrpc: "2.0", ...members });
}

/** Starts an example on a free port, and passes the port on. */
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
      // The order of arrival is not known: each peer repeats its message until the other one has received it.
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

  it("rooms.ts sends to all members of a room, and closes a slow one", async () => {
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
      // Ben stops reading. Ada writes and reads until the room closes Ben's connection.
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

  it("json_rpc.ts answers calls, refuses wrong ones, and is silent about notifications", async () => {
    await withExample("json_rpc.ts", async (port) => {
      const ws = await connect(`ws://127.0.0.1:${port}`, { protocols: ["jsonrpc-2.0"] });
      assert.equal(ws.protocol, "jsonrpc-2.0");
      const error = (code: number, message: string) => ({ error: { code, message } });
      const rows: [sent: string | Uint8Array, answer: object | undefined][] = [
        [call({ id: 1, method: "add", params: [1, 2] }), { id: 1, result: 3 }],
        [call({ method: "add", params: [1, 2] }), undefined],
        [call({ id: "a", method: "sleep", params: 1 }), { id: "a", result: null }],
        [call({ id: 2, method: "add", params: "x" }), {
          id: 2,
          ...error(-32602, "Invalid params"),
        }],
        [call({ id: 3, method: "toString" }), { id: 3, ...error(-32601, "Method not found") }],
        ["{", { id: null, ...error(-32700, "Parse error") }],
        [new Uint8Array(3), { id: null, ...error(-32700, "Parse error") }],
        ["[]", { id: null, ...error(-32600, "Invalid Request") }],
        [call({ method: "nothing" }), undefined],
        [call({ id: 4, method: "add", params: [] }), { id: 4, result: 0 }],
      ];
      for (const [sent] of rows) await ws.send(sent);
      for (const [, answer] of rows) {
        if (answer === undefined) continue;
        assert.deepEqual(JSON.parse(String(await ws.receive())), { jsonrpc: "2.0", ...answer });
      }
      await ws.close({ closeCode: 1000 });
    });
  });

  it("ticker_client.ts follows ticker.ts across restarts and a crash", async () => {
    await withPrograms(async (start) => {
      const [ticker, client] = await Promise.all(
        ["ticker.ts", "ticker_client.ts"].map((name) => readSource(`examples/${name}`)),
      );
      const serving = await start("ticker.ts", ticker, { env: { PORT: "0", INTERVAL: "5" } });
      const [, PORT] = await serving.printed(/port: (\d+)/);
      const url = `ws://127.0.0.1:${PORT}`;
      const following = await start("ticker_client.ts", client, { args: [url] });
      await following.printed(/^connected\n(\d+\n){3}/);
      serving.stop();
      await following.printed(/ended: .*1012.*\nagain in \d+ ms/);
      await serving.exited;
      const again = await start("ticker.ts", ticker, { env: { PORT, INTERVAL: "5" } });
      await again.printed(/port: /);
      await following.printed(/again in [^]*connected\n(\d+\n){3}/);
      again.stop("SIGKILL");
      await following.printed(/\nended: [^]*\nended: /);
      following.stop();
      await following.exited;
      assert.match(following.stdout, /stopped\n$/);
      assert.equal(following.stderr, "");
    });
  });

  it("chat.ts has a page on which people and programs talk", {
    skip: unlessThere(PEERS.chromium).skip,
  }, async () => {
    const source = (await readSource("examples/chat.ts")).replaceAll("8080", "0");
    // A script that does what a person at the page would do: it greets, and repeats what a program says.
    const person = `<script type="module">
      const form = document.querySelector("form");
      const list = document.querySelector("ul");
      const say = (text) => {
        form.line.value = text;
        form.requestSubmit();
      };
      let heard = 0;
      new MutationObserver(() => {
        for (const { textContent: text } of [...list.children].reverse().slice(heard)) {
          heard++;
          if (/has come/.test(text) && heard === 1) say("Hello");
          const [, question] = /: (.*[?])$/.exec(text) ?? [];
          if (question) say("I was asked <b>" + question + "</b>");
        }
      }).observe(list, { childList: true });
    </script>\`;

// The library`;
    assert.ok(source.includes("</script>`;\n\n// The library"));
    const program = source.replace("</script>`;\n\n// The library", () => `</script>${person}`);
    await withPrograms(async (start) => {
      const server = await start("chat.ts", program);
      const [, port] = await server.printed(/port: (\d+)/);
      const ws = await connect(`ws://127.0.0.1:${port}/chat`);
      assert.equal(await ws.receive(), "guest 1 has come");
      const talk = async () => {
        assert.equal(await ws.receive(), "guest 2 has come");
        assert.equal(await ws.receive(), "guest 2: Hello");
        await ws.send("How are you?");
        assert.equal(await ws.receive(), "guest 1: How are you?");
        assert.equal(await ws.receive(), "guest 2: I was asked <b>How are you?</b>");
      };
      await withBrowser(`http://127.0.0.1:${port}/`, talk());
      assert.equal(await ws.receive(), "guest 2 has left");
      const origin = "https://evil.example";
      const refused = await rejection<HandshakeError>(
        connect(`ws://127.0.0.1:${port}/chat`, { origin }),
      );
      assert.equal(refused.status, 403);
      await ws.close();
    }, await insideRepository());
  });
});
