/**
 * Failing peers and networks: the error is the same on every runtime and at both ends, and nothing is left
 * open.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { connect as connectSocket, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  connect,
  type ConnectOptions,
  HandshakeError,
  type ServeOptions,
  type Server,
  type WebSocketConnection,
  WebSocketError,
} from "../mod.ts";
import { type Certificate, certificates } from "./certificates.ts";
import { freePort } from "./ports.ts";
import { withoutLeak } from "./resources.ts";
import { echo, portOf, rejection, until, withRawServer, withServer } from "./support.ts";

type Scheme = "ws" | "wss";

/** The part of an error that is the same on every runtime. */
function brief(error: unknown): string {
  if (error instanceof HandshakeError) return error.code;
  if (error instanceof WebSocketError) return String(error.closeCode);
  return String(error);
}

/** What connect() rejects with. */
async function failureOf(url: string, options: ConnectOptions = {}): Promise<string> {
  const { ca } = await certificates();
  return brief(await rejection(connect(url, { tls: { ca }, ...options })));
}

/** A wire that can fail, between a real client and a real server. */
class Wire {
  /** Called with the bytes from the client until the wire has failed. */
  onData: () => void = () => {};
  readonly #near: Socket;
  readonly #far: Socket;
  #failed = false;

  constructor(near: Socket, port: number) {
    this.#near = near;
    this.#far = connectSocket({ host: "127.0.0.1", port, allowHalfOpen: true });
    this.#carry(near, this.#far);
    this.#carry(this.#far, near);
    this.#far.on("error", () => {});
  }

  #carry(from: Socket, to: Socket): void {
    from.on("data", (chunk) => {
      if (from === this.#near && !this.#failed) this.onData();
      if (!this.#failed) to.write(chunk);
    });
    from.on("end", () => !this.#failed && to.end());
    from.on("close", () => !this.#failed && to.destroy());
  }

  /** Fails at both ends, and carries nothing from then on. */
  fail(how: (end: Socket) => void): void {
    if (this.#failed) return;
    this.#failed = true;
    how(this.#near);
    how(this.#far);
  }

  destroy(): void {
    this.#near.destroy();
    this.#far.destroy();
  }
}

/** The ways in which a wire fails. */
const FAULTS = {
  "is reset": (end: Socket) => void end.resetAndDestroy(),
  "is closed": (end: Socket) => void end.destroy(),
  "is half-closed": (end: Socket) => void end.end(),
  "carries garbage": (end: Socket) =>
    void end.write("\xff\x00 garbage, and no more\r\n\r\n", "latin1"),
  "falls silent": () => {},
};

/** When the wire fails: with the first bytes, while the server handles the request, or once open. */
type Stage = "at once" | "during the handshake" | "once open";

/** The error of the client, then that of the server's handler; "-" if the handler is not called. */
type Outcome = [client: string, server: string];

const OUTCOMES: Record<Stage, Record<keyof typeof FAULTS, Record<Scheme, Outcome>>> = {
  "at once": {
    "is reset": { ws: ["connection-lost", "-"], wss: ["connect-failed", "-"] },
    "is closed": { ws: ["connection-lost", "-"], wss: ["connect-failed", "-"] },
    "is half-closed": { ws: ["connection-lost", "-"], wss: ["connect-failed", "-"] },
    "carries garbage": { ws: ["malformed-head", "-"], wss: ["connect-failed", "-"] },
    "falls silent": { ws: ["timeout", "-"], wss: ["timeout", "-"] },
  },
  "during the handshake": {
    "is reset": { ws: ["connection-lost", "1006"], wss: ["connection-lost", "1006"] },
    "is closed": { ws: ["connection-lost", "1006"], wss: ["connection-lost", "1006"] },
    "is half-closed": { ws: ["connection-lost", "1006"], wss: ["connection-lost", "1006"] },
    "carries garbage": { ws: ["malformed-head", "1002"], wss: ["connection-lost", "1006"] },
    "falls silent": { ws: ["timeout", "-"], wss: ["timeout", "-"] },
  },
  "once open": {
    "is reset": { ws: ["1006", "1006"], wss: ["1006", "1006"] },
    "is closed": { ws: ["1006", "1006"], wss: ["1006", "1006"] },
    "is half-closed": { ws: ["1006", "1006"], wss: ["1006", "1006"] },
    "carries garbage": { ws: ["1002", "1002"], wss: ["1006", "1006"] },
    "falls silent": { ws: ["1011", "1011"], wss: ["1011", "1011"] },
  },
};

/** Runs a server whose wire fails once, and returns what both ends report. */
async function failing(scheme: Scheme, stage: Stage, fault: keyof typeof FAULTS): Promise<Outcome> {
  const silent = fault === "falls silent";
  const limits = {
    openTimeout: silent && stage !== "once open" ? 200 : 30_000,
    pingInterval: silent ? 50 : 0,
    pingTimeout: 1000,
    closeTimeout: 100,
  };
  const outcome: Outcome = ["", "-"];
  const errors: unknown[] = [];
  let wire: Wire | undefined;
  const fail = () => wire!.fail(FAULTS[fault]);
  let release!: () => void;
  const released = new Promise<void>((resolve) => release = resolve);
  const { ca, leaf } = await certificates();
  const options: ServeOptions = {
    ...limits,
    tls: scheme === "wss" ? leaf : undefined,
    onError: (error) => errors.push(error),
    // The server may notice that the client has left before its hook is done, or after.
    onRefused: ({ code }) => {
      if (stage === "during the handshake" && code === "connection-lost") outcome[1] = "1006";
    },
    onRequest: async ({ url }) => {
      if (stage !== "during the handshake" || !url.endsWith("/")) return;
      fail();
      await released;
    },
  };
  const handler = async (ws: WebSocketConnection) => {
    const ended = ws.closed.then(() => "clean", brief);
    await echo(ws).catch(() => {});
    if (ws.request.url.endsWith("/")) outcome[1] = await ended;
  };
  await withServer(options, async (server) => {
    const { url, close } = await wireTo(portOf(server), (made) => {
      wire = made;
      if (stage === "at once") made.onData = fail;
    });
    try {
      outcome[0] = await meet(url.replace("ws", scheme), { ...limits, tls: { ca } }, fail);
      // A server that is not told of a failure ends the handshake after its own timeout.
      if (!silent) release();
      if (OUTCOMES[stage][fault][scheme][1] !== "-") await until(() => outcome[1] !== "-");
    } finally {
      // If a socket waits for its peer in its handshake, the peer acts here.
      wire?.destroy();
      await close();
    }
    await goesOn(server, scheme);
    // A transport that does not report its end is cut after closeTimeout. That timer does not keep the
    // process running.
    await until(() => server.connections.size === 0);
  }, handler).finally(release);
  assert.deepEqual(errors, []);
  return outcome;
}

/** Connects, exchanges a message, and waits for the end. */
async function meet(url: string, options: ConnectOptions, opened: () => void): Promise<string> {
  try {
    const ws = await connect(url, options);
    await ws.send("a");
    assert.equal(await ws.receive(), "a");
    opened();
    return JSON.stringify(await ws.closed);
  } catch (error) {
    return brief(error);
  }
}

async function wireTo(port: number, onWire: (wire: Wire) => void) {
  let close!: () => void;
  const closing = new Promise<void>((resolve) => close = resolve);
  let url!: (url: string) => void;
  const listening = new Promise<string>((resolve) => url = resolve);
  const finished = withRawServer((raw) => onWire(new Wire(raw.socket, port)), async (listens) => {
    url(listens);
    await closing;
  });
  return { url: await listening, close: () => (close(), finished) };
}

/** Checks that a correct client is still served. */
async function goesOn(server: Server, scheme: Scheme): Promise<void> {
  const { ca } = await certificates();
  const ws = await connect(`${scheme}://127.0.0.1:${portOf(server)}/again`, { tls: { ca } });
  await ws.send("a");
  assert.equal(await ws.receive(), "a");
  await ws.close();
}

for (const [stage, faults] of Object.entries(OUTCOMES) as [Stage, typeof OUTCOMES[Stage]][]) {
  describe(`A connection that fails ${stage}`, () => {
    for (const fault of Object.keys(FAULTS) as (keyof typeof FAULTS)[]) {
      for (const scheme of ["ws", "wss"] as const) {
        const [client, server] = faults[fault][scheme];
        it(`A ${scheme} connection that ${fault} ${stage} is "${client}", "${server}"`, async () => {
          await withoutLeak(async () => {
            assert.deepEqual(await failing(scheme, stage, fault), [client, server]);
          });
        });
      }
    }
  });
}

describe("A connection that cannot come about", () => {
  /** The error of a client that meets a server with this certificate. */
  async function finding(name: "leaf" | "elsewhere" | "expired", authority?: "otherCa") {
    const made = await certificates();
    const tls: Certificate = made[name];
    let error = "";
    await withServer({ tls }, async (server) => {
      const url = `wss://localhost:${portOf(server)}/`;
      error = await failureOf(url, { tls: { ca: made[authority ?? "ca"] } });
    });
    return error;
  }

  const cases: [name: string, error: string, run: () => Promise<string>][] = [
    [
      "a ws port where nobody listens",
      "connect-failed",
      async () => await failureOf(`ws://localhost:${await freePort()}/`),
    ],
    [
      "a wss port where nobody listens",
      "connect-failed",
      async () => await failureOf(`wss://localhost:${await freePort()}/`),
    ],
    ["a Unix socket where nobody listens", "connect-failed", async () => {
      const folder = await mkdtemp(join(tmpdir(), "sluice-"));
      try {
        return await failureOf("ws://localhost/", { unix: join(folder, "socket") });
      } finally {
        await rm(folder, { recursive: true });
      }
    }],
    ["a certificate of an unknown authority", "certificate", () => finding("leaf", "otherCa")],
    ["a certificate for another host", "certificate", () => finding("elsewhere")],
    ["a certificate that has expired", "certificate", () => finding("expired")],
    ["plain text on the TLS port", "connection-lost", async () => {
      const { leaf } = await certificates();
      let error = "";
      await withServer({ tls: leaf }, async (server) => {
        error = await failureOf(`ws://localhost:${portOf(server)}/`);
        await goesOn(server, "wss");
      });
      return error;
    }],
    ["TLS on the plain port", "connect-failed", async () => {
      let error = "";
      await withServer({}, async (server) => {
        error = await failureOf(`wss://localhost:${portOf(server)}/`);
        await goesOn(server, "ws");
      });
      return error;
    }],
  ];
  for (const [name, code, run] of cases) {
    it(`connect() says "${code}" of ${name}, and leaves nothing open`, async () => {
      await withoutLeak(async () => assert.equal(await run(), code));
    });
  }
});
