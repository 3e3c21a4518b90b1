import { describe } from "node:test";
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import config from "../deno.json" with { type: "json" };
import { it, knownLimit, peerMissing } from "./it.ts";
import { basicAuth, serve, type WebSocketConnection } from "../mod.ts";
import { certificates } from "./certificates.ts";
import { urlOf, withServer } from "./support.ts";

const PATH = fileURLToPath(new URL("../lib/cli.ts", import.meta.url));
const COMMAND = [
  process.execPath,
  ...(process.versions.deno === undefined ? [] : ["run", "-A", "--no-check"]),
  PATH,
];

/** A run of the command. */
class Run {
  stdout = "";
  stderr = "";
  readonly code: Promise<number | null>;
  readonly #child: ChildProcess;
  #onOutput = () => {};

  constructor([program, ...args]: string[]) {
    const env = { ...process.env, NO_COLOR: "1", TERM: "dumb" };
    this.#child = spawn(program, args, { env, stdio: "pipe" });
    this.#child.stdout!.on("data", (chunk) => {
      this.stdout += chunk;
      this.#onOutput();
    });
    this.#child.stderr!.on("data", (chunk) => {
      this.stderr += chunk;
      this.#onOutput();
    });
    this.code = new Promise((resolve) => this.#child.on("close", resolve));
    this.code.then(() => this.#onOutput());
  }

  type(text: string): void {
    this.#child.stdin!.write(text);
  }

  endInput(): void {
    this.#child.stdin!.end();
  }

  closeOutput(): void {
    this.#child.stdout!.destroy();
  }

  interrupt(): void {
    // On Deno a child has no exit code after its own kill() is called.
    process.kill(this.#child.pid!, "SIGINT");
  }

  /** Waits until the command has printed something that matches. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
      if (match !== null) return match;
      if (this.#child.exitCode !== null) {
        throw new Error(`Expected ${pattern}, received ${this.stdout}${this.stderr}`);
      }
      await new Promise<void>((resolve) => this.#onOutput = resolve);
    }
  }

  stop(): void {
    this.#child.kill("SIGKILL");
  }
}

async function withRun(args: string[], use: (run: Run) => unknown, command = COMMAND) {
  const run = new Run([...command, ...args]);
  try {
    await use(run);
  } finally {
    run.stop();
    await run.code;
  }
}

/** Files with an authority and with a certificate that the authority has signed for both ends. */
async function withFiles(use: (paths: Record<"ca" | "cert" | "key", string>) => Promise<void>) {
  const { ca, leaf: { cert, key } } = await certificates();
  const folder = await mkdtemp(join(tmpdir(), "sluice-"));
  const pathOf = (name: string) => join(folder, `${name}.pem`);
  try {
    for (const [name, text] of Object.entries({ ca, cert, key })) {
      await writeFile(pathOf(name), text);
    }
    await use({ ca: pathOf("ca"), cert: pathOf("cert"), key: pathOf("key") });
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe("K111 the command line", () => {
  it("K111 sends the typed lines and prints the received messages until the input ends", async () => {
    await withServer({}, async (server) => {
      await withRun([urlOf(server)], async (run) => {
        run.type("hello\n");
        await run.printed(/^hello$/m);
        run.type("wörld\nlast\n");
        run.endInput();
        assert.equal(await run.code, 0);
        assert.equal(run.stdout, "hello\nwörld\nlast\n");
        assert.match(run.stderr, /^Connected to ws:.*\n.*1000/);
      });
    });
  });

  it("shows no password, and nothing of the query", async () => {
    await withServer({}, async (server) => {
      const url = `${urlOf(server).replace("://", "://hush:hush@")}a?token=hush`;
      await withRun(["--ping", "once", url], async (run) => {
        assert.equal(await run.code, 0);
        assert.equal(run.stderr, `Connected to ${urlOf(server)}a\n`);
      });
    });
    for (const args of [["-H", "Authorization hush", "localhost"], ["ws://u:hush@x:99999?hush"]]) {
      await withRun(args, async (run) => {
        assert.equal(await run.code, 2);
        assert.match(run.stderr, /^sluice: Expected /);
        assert.doesNotMatch(run.stderr, /hush/);
      });
    }
  });

  it("escapes control characters, and prints binary messages as hexadecimal digits", async () => {
    const handler = async (ws: WebSocketConnection) => {
      await ws.send("a\x1b[31m\x07\n\t\x9b\u2028\u202eb\x7f");
      await ws.send(new Uint8Array([0, 1, 0xab, 0xff]));
      await ws.send(new Uint8Array());
    };
    await withServer({}, async (server) => {
      await withRun(["--count", "3", urlOf(server)], async (run) => {
        assert.equal(await run.code, 0);
        assert.equal(
          run.stdout,
          "a\\x1b[31m\\x07\\n\\t\\x9b\\u2028\\u202eb\\x7f\n0x0001abff\n0x\n",
        );
      });
    }, handler);
  });

  it("prints at most --count messages, even if more arrive", async () => {
    const handler = async (ws: WebSocketConnection) => {
      for (let i = 0; i < 20; i++) await ws.send(`${i}`);
      await ws.closed;
    };
    await withServer({}, async (server) => {
      await withRun(["--count", "2", urlOf(server)], async (run) => {
        assert.equal(await run.code, 0);
        assert.equal(run.stdout, "0\n1\n");
      });
    }, handler);
  });

  it("sends header fields, origin and subprotocols, and hides the password", async () => {
    const seen: unknown[] = [];
    const handler = (ws: WebSocketConnection) => {
      const { headers, url } = ws.request;
      seen.push(ws.protocol, headers.get("x-a"), headers.get("x-b"), headers.get("origin"));
      seen.push(headers.get("authorization"), new URL(url).search);
      ws.close({ closeCode: 1000 });
    };
    await withServer({ protocols: ["b"] }, async (server) => {
      const url = urlOf(server, "/?q=1").replace("//", "//ada:secret@");
      const args = ["-H", "X-A: 1", "--header", "X-B:2:3", "-o", "https://a.example"];
      await withRun([...args, "-s", "a", "-s", "b", url], async (run) => {
        assert.equal(await run.code, 0);
        assert.deepEqual(seen, [
          "b",
          "1",
          "2:3",
          "https://a.example",
          `Basic ${btoa("ada:secret")}`,
          "?q=1",
        ]);
        assert.match(run.stderr, /Connected to .*\(b\)/);
        assert.doesNotMatch(run.stderr, /secret/);
      });
    }, handler);
  });

  it("takes a URL without a scheme for one of ws", async () => {
    await withServer({}, async (server) => {
      const { port } = server;
      for (
        const place of [`127.0.0.1:${port}`, `localhost:${port}`, `127.0.0.1:${port}/a?b=ws://c`]
      ) {
        await withRun(["-m", "Hello", "-n", "1", place], async (run) => {
          assert.equal(await run.code, 0, run.stderr);
          assert.equal(run.stdout, "Hello\n");
          assert.match(run.stderr, new RegExp(`^Connected to ws://[^/]+:${port}/`));
        });
      }
    });
  });

  it("--user authenticates, and no output shows the password", async () => {
    await withServer(
      { onRequest: basicAuth({ credentials: { username: "ada", password: "sé:cret" } }) },
      async (server) => {
        const messages = ["-m", "Hello", "-n", "1", urlOf(server)];
        await withRun(["--user", "ada:sé:cret", ...messages], async (run) => {
          assert.equal(await run.code, 0, run.stderr);
          assert.equal(run.stdout, "Hello\n");
          assert.doesNotMatch(run.stderr, /cret/);
        });
        await withRun(["--user", "ada:wrong", ...messages], async (run) => {
          assert.equal(await run.code, 3);
          assert.match(run.stderr, /401/);
          assert.doesNotMatch(run.stderr, /wrong/);
        });
      },
    );
  });

  it("--ping prints the latency: once, or of each ping", async () => {
    const handler = (ws: WebSocketConnection) => ws.readable.pipeTo(ws.writable);
    await withServer({}, async (server) => {
      await withRun(["--ping", "once", urlOf(server)], async (run) => {
        assert.equal(await run.code, 0, run.stderr);
        assert.match(run.stdout, /^\d+\.\d ms\n$/);
      });
      await withRun(["--ping", "0.05", urlOf(server)], async (run) => {
        await run.printed(/(pong after \d+\.\d ms\n.*){2}/);
        run.endInput();
        assert.equal(await run.code, 0);
        assert.equal(run.stdout, "");
      });
    }, handler);
  });

  it("--verbose shows the handshake and each frame, without the password", async () => {
    await withServer({}, async (server) => {
      const args = ["--verbose", "--user", "ada:secret", "-m", "Hello\x07", "-n", "1"];
      await withRun([...args, urlOf(server, "/chat")], async (run) => {
        assert.equal(await run.code, 0, run.stderr);
        assert.equal(run.stdout, "Hello\\x07\n");
        assert.match(run.stderr, /out request GET \/chat; .*in response 101 /s);
        assert.match(run.stderr, /out text 6 bytes: "Hello\\x07"\n.*in text 6 bytes: .*in close /s);
        assert.doesNotMatch(run.stderr, new RegExp(`secret|${btoa("ada:secret")}`));
      });
    });
  });

  it("offers compression, unless the option is false", async () => {
    const seen: string[] = [];
    const handler = (ws: WebSocketConnection) => {
      seen.push(ws.extensions.slice(0, 18));
      ws.close({ closeCode: 1000 });
    };
    await withServer({ compression: true }, async (server) => {
      for (const args of [[], ["--compression", "on"], ["--compression", "off"]]) {
        await withRun([...args, urlOf(server)], async (run) => assert.equal(await run.code, 0));
      }
    }, handler);
    assert.deepEqual(seen, ["permessage-deflate", "permessage-deflate", ""]);
  });

  it("connects through the proxy of --proxy", async () => {
    await withServer({}, async (server) => {
      // The server is not a proxy, and its answer says so.
      const proxy = urlOf(server).replace("ws:", "http:");
      await withRun(["--proxy", proxy, "ws://nowhere.invalid/"], async (run) => {
        assert.equal(await run.code, 3);
        assert.match(run.stderr, /proxy/);
      });
    });
  });

  const ends: [title: string, handler: (ws: WebSocketConnection) => unknown, code: number][] = [
    ["1000", (ws) => ws.close({ closeCode: 1000 }), 0],
    ["1001", (ws) => ws.close({ closeCode: 1001 }), 0],
    ["no code", (ws) => ws.close(), 0],
    ["4000", (ws) => ws.close({ closeCode: 4000, reason: "out of paper" }), 1],
    ["a cut", (ws) => ws.terminate(), 1],
  ];
  for (const [title, handler, code] of ends) {
    it(`exits with ${code} after ${title}`, async () => {
      await withServer({}, async (server) => {
        await withRun([urlOf(server)], async (run) => {
          assert.equal(await run.code, code);
          if (title === "4000") assert.match(run.stderr, /4000.*out of paper/);
        });
      }, handler);
    });
  }

  it("exits with 1, and says no more, when nobody reads its output any more", async () => {
    const handler = async (ws: WebSocketConnection) => {
      ws.discard();
      while (ws.state === "open") await ws.send("more").catch(() => {});
    };
    await withServer({}, async (server) => {
      await withRun([urlOf(server)], async (run) => {
        await run.printed(/more/);
        run.closeOutput();
        assert.equal(await run.code, 1);
        assert.match(run.stderr, /^Connected to .*\n$/);
      });
    }, handler);
    await withRun(["serve", "--port", "0"], async (run) => {
      run.closeOutput();
      assert.equal(await run.code, 1);
      assert.equal(run.stderr, "");
    });
  });

  const wrong: string[][] = [
    [],
    ["ws://127.0.0.1:1", "more"],
    ["--unknown", "ws://127.0.0.1:1"],
    ["--count", "x", "ws://127.0.0.1:1"],
    ["--count", "0", "ws://127.0.0.1:1"],
    ["--ping", "-1", "ws://127.0.0.1:1"],
    ["--ping", "once", "--message", "a", "ws://127.0.0.1:1"],
    ["--user", "secret", "ws://127.0.0.1:1"],
    ["--cert", "only.pem", "wss://127.0.0.1:1"],
    ["--key", "only.pem", "wss://127.0.0.1:1"],
    ["-H", "no colon", "ws://127.0.0.1:1"],
    ["-H", "A: b\nc", "ws://127.0.0.1:1"],
    ["-s", "a b", "ws://127.0.0.1:1"],
    ["--compression", "yes", "ws://127.0.0.1:1"],
    ["--proxy", "ftp://127.0.0.1", "ws://127.0.0.1:1"],
    ["ftp://127.0.0.1/"],
    ["--ca", "/nowhere", "wss://127.0.0.1:1"],
    ["serve", "--cert", "only.pem"],
    ["serve", "--port", "99999"],
    ["serve", "--insecure"],
    ["serve", "--ping", "once"],
    ["serve", "--user", "a:secret"],
    ["--port", "80", "ws://127.0.0.1:1"],
  ];
  for (const args of wrong) {
    it(`exits with 2 for ${JSON.stringify(args)}`, async () => {
      await withRun(args, async (run) => {
        assert.equal(await run.code, 2);
        assert.match(run.stderr, /^sluice: .*\nUsage: sluice [^]*\nTry sluice --help\n$/);
        assert.doesNotMatch(run.stderr, /secret/);
        assert.equal(run.stdout, "");
      });
    });
  }

  it("exits with 3 if it cannot connect, and prints the refusal", async () => {
    const onRequest = () => new Response("Not \x1bhere", { status: 403 });
    await withServer({ onRequest }, async (server) => {
      await withRun([urlOf(server)], async (run) => {
        assert.equal(await run.code, 3);
        assert.match(run.stderr, /^Cannot connect: .*403.*\nNot \\x1bhere\n$/);
      });
    });
  });

  it("prints its help and its version", async () => {
    await withRun(["--help"], async (run) => {
      assert.equal(await run.code, 0);
      assert.match(run.stdout, /^Usage: sluice/);
    });
    await withRun(["-V"], async (run) => {
      assert.equal(await run.code, 0);
      assert.equal(run.stdout, `${config.version}\n`);
    });
  });

  it("serve is an echo server, over TLS too, until it is interrupted", async () => {
    await withFiles(async ({ ca, cert, key }) => {
      const args = ["serve", "--port", "0", "--cert", cert, "--key", key, "-s", "chat"];
      await withRun(args, async (serving) => {
        const [, url] = await serving.printed(/Listening on (wss:\S+)/);
        const messages = ["-m", "one", "-m", "two", "-n", "2", "-s", "chat"];
        await withRun([...messages, "--ca", ca, url], async (run) => {
          assert.equal(await run.code, 0);
          assert.equal(run.stdout, "one\ntwo\n");
          assert.match(run.stderr, /\(chat\)/);
        });
        await withRun([url], async (run) => {
          assert.equal(await run.code, 3);
          assert.match(run.stderr, /certificate/i);
        });
        serving.interrupt();
        assert.equal(await serving.code, 0);
      });
    });
  });

  const onDeno = process.versions.deno !== undefined;
  const noClientAuth = onDeno && knownLimit("a server on Deno cannot ask for a certificate");
  it("--cert and --key show a certificate to the server", { skip: noClientAuth }, async () => {
    const { ca, leaf } = await certificates();
    await withFiles(async (files) => {
      await withServer({ tls: { ...leaf, ca } }, async (server) => {
        const args = [
          "--ca",
          files.ca,
          "-m",
          "Hello",
          "-n",
          "1",
          urlOf(server).replace("ws:", "wss:"),
        ];
        await withRun([...args, "--cert", files.cert, "--key", files.key], async (run) => {
          assert.equal(await run.code, 0, run.stderr);
          assert.equal(run.stdout, "Hello\n");
        });
        await withRun(args, async (run) => assert.notEqual(await run.code, 0));
      });
    });
  });

  it("prints what docs/reference/cli.md says", async () => {
    const page = await readFile(new URL("../docs/reference/cli.md", import.meta.url), "utf8");
    const blocks = [...page.matchAll(/```console\n\$ npx sluice (.*)\n([^]*?)```/g)];
    assert.equal(blocks.length, 4);
    const linesOf = (text: string) => text.replace(/\d+\.\d ms/g, "N ms").split("\n").sort();
    const [[, serve, listening], ...others] = blocks;
    await withRun(serve.replace("8080", "0").split(" "), async (serving) => {
      const [line, port] = await serving.printed(/Listening on .*:(\d+)\/\n/);
      assert.equal(line, listening.replace("8080", port));
      for (const [, command, output] of others) {
        await withRun(command.replace("8080", port).split(" "), async (run) => {
          await run.code;
          // Two streams: the order of their lines is not fixed.
          assert.deepEqual(
            linesOf(run.stdout + run.stderr),
            linesOf(output.replaceAll("8080", port)),
          );
        });
      }
    });
  });

  // A terminal, as a user sees it: a prompt, and messages that do not mix with the line being typed.
  const script = ["/usr/bin/script"].find((path) => existsSync(path));
  const skip = script === undefined && peerMissing("the program script");
  it("K111 on a terminal it prompts, and control-D closes", { skip }, async () => {
    const server = await serve({ port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
    try {
      const quoted = [...COMMAND, urlOf(server)].map((part) => `'${part}'`).join(" ");
      await withRun([], async (run) => {
        await run.printed(/> /);
        run.type("hello\r");
        await run.printed(/< hello/);
        run.type("\x04");
        assert.equal(await run.code, 0);
        assert.match(run.stdout, /1000/);
      }, [script!, "-qfec", quoted, "/dev/null"]);
    } finally {
      await server.shutdown();
    }
  });
});
