/** Fuzzes the sans-I/O core. These targets are synchronous, so they take the most inputs. */
import assert from "node:assert/strict";
import {
  Endpoint,
  type Frame,
  FrameDecoder,
  HandshakeError,
  headerValue,
  LocalProtocolError,
  type Message,
  MessageAssembler,
  parseExtensions,
  parseProtocols,
  parseRequestHead,
  parseResponseHead,
  parseTokenList,
  parseUpgrade,
  Protocol,
  RemoteProtocolError,
  response,
  type Role,
  serializeExtensions,
} from "../../lib/core/mod.ts";
import { HeadReader } from "../../lib/core/http1.ts";
import { frameInput, joined, type Said } from "./frames.ts";
import { requestInput, responseInput, valueInput } from "./heads.ts";
import { chop, type Random } from "./random.ts";
import { outcomeOf, type Target } from "./target.ts";

const ROLES: readonly Role[] = ["client", "server"];
const MAX_FRAME = 270_000;
const MAX_MESSAGE = 20_000;

/** The frames that a decoder returns for its input, and the error that ends it. */
function decode(role: Role, chunks: Uint8Array[]): { frames: Frame[]; error: unknown } {
  const decoder = new FrameDecoder({ role, maxFrameSize: MAX_FRAME });
  const frames: Frame[] = [];
  let parts: Uint8Array[] = [];
  let pushed = 0;
  let given = 0;
  try {
    for (const chunk of chunks) {
      decoder.push(chunk);
      pushed += chunk.length;
      for (let piece = decoder.next(); piece !== undefined; piece = decoder.next()) {
        const { header, payload, last } = piece;
        given += payload.length;
        parts.push(payload);
        assert.ok(header.length <= MAX_FRAME);
        if (!last) continue;
        const { fin, rsv, opcode } = header;
        const whole = joined(parts);
        assert.equal(whole.length, header.length);
        frames.push({ fin, rsv, opcode: opcode as Frame["opcode"], payload: whole });
        parts = [];
      }
      assert.ok(decoder.bufferedAmount + given <= pushed);
    }
    decoder.end();
    return { frames, error: undefined };
  } catch (error) {
    if (!(error instanceof RemoteProtocolError)) throw error;
    assert.throws(() => decoder.next(), (again) => again === error);
    decoder.push(new Uint8Array(10));
    assert.equal(decoder.bufferedAmount, 0, "Nothing is kept after a failure");
    return { frames, error };
  }
}

const decoder: Target = {
  what: "FrameDecoder: same frames for whole and cut input",
  inputs: 200_000,
  run(random) {
    const role = random.pick(ROLES);
    const { bytes, said } = frameInput(random, role);
    const chopped = decode(role, chop(random, bytes));
    const whole = decode(role, [bytes.slice()]);
    assert.deepEqual(chopped.frames, whole.frames);
    assert.equal(String(chopped.error), String(whole.error));
    if (said !== undefined) assert.equal(whole.error, undefined);
    return whole.error === undefined ? "frames" : outcomeOf(whole.error, [1002, 1006, 1009]);
  },
};

/** The events of a Protocol for its input, and whether it has failed. */
function converse(role: Role, chunks: Uint8Array[]): Said & { failed: boolean } {
  const protocol = new Protocol(role, { maxMessageSize: MAX_MESSAGE, ownsInput: true });
  const peer = new Protocol(role === "client" ? "server" : "client");
  const assembler = new MessageAssembler();
  const said: Said & { failed: boolean } = {
    messages: [],
    pings: [],
    closeCode: undefined,
    failed: false,
  };
  const answer = (event: Parameters<Protocol["send"]>[0]) => peer.receive(protocol.send(event));
  try {
    for (const chunk of [...chunks, null]) {
      if (protocol.state === "closed") break;
      protocol.receive(chunk);
      for (const event of protocol.events()) {
        if (event.type === "ping") said.pings.push(event.payload.slice());
        else if (event.type === "close") said.closeCode = event.closeCode;
        else if (event.type !== "pong") {
          const message = assembler.push(event);
          assert.ok(assembler.size <= MAX_MESSAGE, `${assembler.size} are held`);
          if (message !== undefined) said.messages.push(checked(message));
        }
        const due = response(event);
        if (due !== undefined) answer(due);
      }
    }
  } catch (error) {
    if (!(error instanceof RemoteProtocolError)) throw error;
    outcomeOf(error, [1002, 1007, 1009]);
    assert.throws(() => protocol.next(), (again) => again === error);
    const { event } = error;
    assert.ok(event?.type === "close");
    if (protocol.state === "open") answer(event);
    said.closeCode = error.closeCode;
    said.failed = true;
  }
  assert.throws(() => protocol.send({ type: "ping", payload: new Uint8Array(0) }), (error) => {
    return error instanceof LocalProtocolError || said.closeCode === undefined;
  });
  // A peer must accept our replies.
  for (const event of peer.events()) assert.match(event.type, /^(pong|close)$/);
  return said;
}

function checked(message: Message): Message {
  if (typeof message === "string") {
    assert.doesNotMatch(message, /\p{Surrogate}/u, "Text is well-formed");
    assert.ok(message.length <= MAX_MESSAGE);
    return message;
  }
  assert.ok(message.length <= MAX_MESSAGE);
  return message.slice();
}

const protocol: Target = {
  what: "Protocol: same messages, pings and end for whole and cut input",
  inputs: 100_000,
  run(random) {
    const role = random.pick(ROLES);
    const { bytes, said } = frameInput(random, role);
    const chopped = converse(role, chop(random, bytes));
    const whole = converse(role, [bytes.slice()]);
    assert.deepEqual(chopped, whole);
    if (said !== undefined && !whole.failed) {
      assert.deepEqual(whole.messages, said.messages);
      assert.deepEqual(whole.pings, said.pings);
      assert.equal(whole.closeCode, said.closeCode ?? 1006);
    } else if (said !== undefined) {
      assert.equal(whole.closeCode, 1009, "A valid stream");
      assert.ok(said.messages.some((message) => message.length * 3 > MAX_MESSAGE));
    }
    return whole.failed ? `failed ${whole.closeCode}` : `closed ${kind(whole.closeCode)}`;
  },
};

function kind(closeCode: number | undefined): string {
  return closeCode === 1005 || closeCode === 1006 ? String(closeCode) : "with a code";
}

/** Passes chunks to one end of a handshake, and returns the outcome. */
function shake(endpoint: Endpoint, chunks: Uint8Array[], accept: () => void): string {
  let rest = 0;
  try {
    for (const chunk of [...chunks, null]) {
      endpoint.receive(chunk);
      rest += chunk?.length ?? 0;
      const event = endpoint.next();
      if (event === undefined) continue;
      const { headers } = (endpoint.role === "server" ? endpoint.request : endpoint.response)!;
      assert.ok(headers.length <= 128);
      assert.ok(endpoint.bufferedAmount <= rest);
      if (event.type === "reject") throw new HandshakeError("The server refuses", "status");
      accept();
      return "agreed";
    }
    return assert.fail("A handshake ended without a head or an error");
  } catch (thrown) {
    const error = thrown instanceof RemoteProtocolError ? thrown.cause : thrown;
    if (error instanceof HandshakeError && endpoint.role === "server") {
      const { status, code } = error;
      assert.equal(status === undefined, code === "connection-lost", `status of ${code}`);
    }
    return outcomeOf(error, []);
  }
}

/**
 * A head is accepted or refused however it is cut into chunks. Which error is found first may depend on the
 * chunks: a head that arrives in small pieces is not parsed again for each byte.
 */
function alike(chopped: string, whole: string, taken: string): void {
  assert.equal(
    chopped === taken,
    whole === taken,
    `The cut head is ${chopped}, the whole head is ${whole}`,
  );
}

const server: Target = {
  what: "Endpoint of a server: accepts, or fails with a status",
  inputs: 100_000,
  run(random) {
    const { bytes, valid } = requestInput(random);
    const chunks = chop(random, bytes);
    const outcomes = [chunks, [bytes]].map((input) => {
      const endpoint = new Endpoint("server");
      return shake(endpoint, input, () => {
        const text = new TextDecoder("latin1").decode(endpoint.send({ type: "accept" }));
        assert.match(text, /^HTTP\/1\.1 101 [^\r\n]+(\r\n[A-Za-z-]+: [^\r\n]*)+\r\n\r\n$/);
      });
    });
    if (valid) assert.equal(outcomes[0], "agreed");
    alike(outcomes[0], outcomes[1], "agreed");
    return outcomes[1];
  },
};

const client: Target = {
  what: "Endpoint of a client: accepts, or fails",
  inputs: 100_000,
  run(random) {
    const endpoint = new Endpoint("client");
    endpoint.send({ type: "request", host: "a", target: "/", protocols: ["chat"] });
    const key = headerValue(endpoint.request!.headers, "Sec-WebSocket-Key")!;
    const { bytes, valid } = responseInput(random, key);
    const outcome = shake(endpoint, chop(random, bytes), () => {});
    if (valid) assert.equal(outcome, "agreed");
    return outcome;
  },
};

const heads: Target = {
  what: "parseRequestHead, parseResponseHead: same result for whole and cut input",
  inputs: 100_000,
  run(random) {
    const request = random.once(2);
    const parse: typeof parseRequestHead | typeof parseResponseHead = request
      ? parseRequestHead
      : parseResponseHead;
    const { bytes } = request ? requestInput(random) : responseInput(random, "a");
    const limits = { maxHeaderCount: 20, maxLineLength: 500, maxHeadSize: 2000 };
    const read = (chunks: Uint8Array[]): [string, unknown] => {
      const reader = new HeadReader<unknown>(parse, limits);
      try {
        for (const chunk of chunks) {
          const found = reader.push(chunk);
          if (found !== undefined) return ["head", found.head];
        }
        return ["more", undefined];
      } catch (error) {
        return [outcomeOf(error, []), undefined];
      }
    };
    const whole = read([bytes]);
    const chopped = read(chop(random, bytes));
    if (whole[0] === "head") assert.deepEqual(chopped, whole);
    else alike(chopped[0], whole[0], "head");
    return whole[0];
  },
};

const PARSERS: readonly ((value: string) => unknown)[] = [
  parseProtocols,
  parseUpgrade,
  (value) => parseTokenList("Connection", value),
];

const headers: Target = {
  what: "parsers of header values: extensions survive a round trip",
  inputs: 400_000,
  run(random: Random) {
    const value = valueInput(random);
    let outcome = "value";
    for (const parse of PARSERS) {
      try {
        parse(value);
      } catch (error) {
        outcomeOf(error, []);
      }
    }
    try {
      const extensions = parseExtensions(value);
      assert.deepEqual(parseExtensions(serializeExtensions(extensions)), extensions);
    } catch (error) {
      outcome = outcomeOf(error, []);
    }
    return outcome;
  },
};

/** The targets without I/O. */
export const CORE: Readonly<Record<string, Target>> = {
  decoder,
  protocol,
  "client-handshake": client,
  "server-handshake": server,
  heads,
  headers,
};
