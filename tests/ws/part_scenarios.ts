/** What `Receiver`, `Sender`, and the halves of a WebSocket that programs reach do. */
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { PassThrough } from "node:stream";
import type { Receiver, WebSocket } from "../../lib/ws.ts";
import { ended, IMPLEMENTATIONS, type Log } from "./implementations.ts";
import type { OptionScenario, Setting } from "./option_scenarios.ts";

/** Notes the events of a receiver. */
function note(receiver: Receiver, log: Log): Receiver {
  for (const name of ["message", "ping", "pong"]) {
    receiver.on(name, (data: Buffer, isBinary = "") => log.push(`${name} ${data} ${isBinary}`));
  }
  receiver.on("conclude", (code: number, reason: Buffer) => log.push(`conclude ${code} ${reason}`));
  receiver.on("error", (error: Error & { code?: string }) => {
    log.push(`${error.name} ${error.code}: ${error.message}`);
  });
  return receiver;
}

/** Gives bytes to a receiver, one at a time, and waits for its end. */
async function read({ server, log }: Setting, hex: string, isServer = false): Promise<void> {
  const receiver = note(new server.Receiver({ isServer, maxPayload: 100 }), log);
  const over = new Promise<void>((resolve) => receiver.on("close", () => resolve()));
  for (const byte of Buffer.from(hex, "hex")) receiver.write(Buffer.of(byte));
  receiver.end();
  await over;
}

/** Sends messages and waits until the other end has taken the last one. */
async function exchange(from: WebSocket, to: WebSocket, send: () => void): Promise<void> {
  const last = new Promise<void>((resolve) => {
    to.on("message", (data) => `${data}` === "last" && resolve());
  });
  send();
  from.send("last");
  await last;
}

export const PART_SCENARIOS: readonly OptionScenario[] = [
  {
    title: "A receiver emits messages, control frames and the end",
    run: (setting) =>
      read(setting, "0103616263" + "890179" + "8003646566" + "8a00" + "880403e86f6b"),
    log: ["ping y ", "message abcdef false", "pong  ", "conclude 1000 ok"],
  },
  {
    title: "A receiver of a server wants masked frames",
    run: async (setting) => {
      await read(setting, "828301020304606060", true);
      await read(setting, "82026869", true);
    },
    log: [
      "message abc true",
      "RangeError WS_ERR_EXPECTED_MASK: Invalid WebSocket frame: MASK must be set",
    ],
  },
  {
    title: "A receiver refuses wrong frames",
    run: async (setting) => {
      for (const hex of ["c100", "8300", "0900", "8002", "81026869ff", "880203ec", "82fe"]) {
        await read(setting, hex);
      }
      await read(setting, "827e007f");
      await read(setting, "8101ff");
    },
    log: [
      "RangeError WS_ERR_UNEXPECTED_RSV_1: Invalid WebSocket frame: RSV1 must be clear",
      "RangeError WS_ERR_INVALID_OPCODE: Invalid WebSocket frame: invalid opcode 3",
      "RangeError WS_ERR_EXPECTED_FIN: Invalid WebSocket frame: FIN must be set",
      "RangeError WS_ERR_INVALID_OPCODE: Invalid WebSocket frame: invalid opcode 0",
      "message hi false",
      "RangeError WS_ERR_INVALID_CLOSE_CODE: Invalid WebSocket frame: invalid status code 1004",
      "RangeError WS_ERR_UNEXPECTED_MASK: Invalid WebSocket frame: MASK must be clear",
      "RangeError WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: Max payload size exceeded",
      "Error WS_ERR_INVALID_UTF8: Invalid WebSocket frame: invalid UTF-8 sequence",
    ],
  },
  {
    title: "A receiver with allowSynchronousEvents: false takes a turn for each event",
    async run({ server, log }) {
      const receiver = note(new server.Receiver({ allowSynchronousEvents: false }), log);
      const isFull = !receiver.write(Buffer.from("8101318101328101338101348a00", "hex"));
      log.push(`${isFull} ${log.length === 0}`);
      receiver.end();
      await once(receiver, "finish");
    },
    log: [
      "false true",
      "message 1 false",
      "message 2 false",
      "message 3 false",
      "message 4 false",
      "pong  ",
    ],
  },
  {
    title: "A receiver throws what its listener throws",
    // deno-lint-ignore require-await
    async run({ server, log }) {
      const receiver = new server.Receiver();
      receiver.on("message", () => {
        throw new Error("oops");
      });
      try {
        receiver.write(Buffer.from("8100", "hex"));
      } catch (error) {
        log.push(`${error}`);
      }
    },
    log: ["Error: oops"],
  },
  {
    title: "Sender.frame() makes frames of all lengths",
    // deno-lint-ignore require-await
    async run({ server: { Sender }, log }) {
      const sizes = [0, 125, 126, 65535, 65536];
      for (const size of sizes) {
        const data = Buffer.alloc(size, "a");
        const parts = Sender.frame(data, { opcode: 2, fin: true, mask: false, readOnly: true });
        log.push(`${parts[0].toString("hex")} ${parts.length} ${parts[1] === data}`);
      }
      const generateMask = (key: Buffer) => void key.set([1, 2, 3, 4]);
      const masked = Sender.frame(Buffer.from("abc"), {
        ...{ opcode: 1, fin: false, rsv1: true, mask: true, readOnly: true },
        generateMask,
      });
      log.push(Buffer.concat(masked).toString("hex"));
      log.push(Buffer.concat(Sender.frame("€", { opcode: 1, fin: true })).toString("hex"));
    },
    log: [
      "8200 1 false",
      "827d 2 true",
      "827e007e 2 true",
      "827effff 2 true",
      "827f0000000000010000 2 true",
      "418301020304606060",
      "8103e282ac",
    ],
  },
  {
    title: "A sender writes messages and control frames to a stream",
    async run({ server: { Receiver, Sender }, log }) {
      for (const mask of [true, false]) {
        const socket = new PassThrough();
        const receiver = note(new Receiver({ isServer: mask }), log);
        const over = once(receiver, "close");
        socket.pipe(receiver);
        const sender = new Sender(socket);
        sender.send("text", { fin: true, mask });
        sender.send(new Uint8Array([97]), { binary: true, fin: false, mask });
        sender.ping("ping", mask);
        sender.send(Buffer.from("b").buffer.slice(0, 0), { binary: true, fin: true, mask });
        sender.pong(Buffer.from("pong"), mask);
        await new Promise<void>((resolve) => sender.close(1000, "bye", mask, () => resolve()));
        socket.end();
        await over;
      }
      const sender = new Sender(new PassThrough());
      for (const call of [() => sender.close(1004), () => sender.ping("a".repeat(126))]) {
        try {
          call();
        } catch (error) {
          log.push(`${error}`);
        }
      }
    },
    log: [
      ...[1, 2].flatMap(() => [
        "message text false",
        "ping ping ",
        "message a true",
        "pong pong ",
        "conclude 1000 bye",
      ]),
      "TypeError: First argument must be a valid error code number",
      "RangeError: The data size must not be greater than 125 bytes",
    ],
  },
  {
    title: "_receiver._maxPayload changes the limit of an open connection",
    async run({ connect, log }) {
      const ends = await connect({ server: { maxPayload: 10 } });
      const { _receiver: receiver } = ends.server;
      log.push(`${receiver!._maxPayload}`);
      await exchange(ends.client, ends.server, () => ends.client.send("a".repeat(10)));
      receiver!._maxPayload = 20;
      await exchange(ends.client, ends.server, () => ends.client.send("b".repeat(20)));
      ends.client.send("c".repeat(21));
      await ended(ends);
      log.push(...ends.log.server);
    },
    log: [
      "10",
      'text "aaaaaaaaaa"',
      'text "last"',
      'text "bbbbbbbbbbbbbbbbbbbb"',
      'text "last"',
      "error WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: Max payload size exceeded (2)",
      'close 1006 "" (3)',
    ],
  },
  {
    title: "Texts that a listener keeps do not change",
    async run({ connect, log }) {
      const ends = await connect();
      const kept: Buffer[] = [];
      ends.server.on("message", (data: Buffer) => kept.push(data));
      await exchange(ends.client, ends.server, () => {
        for (const length of [3, 300, 3000, 30_000]) {
          for (const letter of ["a", "b"]) ends.client.send(letter.repeat(length));
        }
      });
      for (const data of kept) log.push(`${data.length} ${[...new Set(data.toString())].join("")}`);
      ends.client.close();
      await ended(ends);
    },
    log: [
      ..."3 300 3000 30000".split(" ").flatMap((length) => [`${length} a`, `${length} b`]),
      "4 last",
    ],
  },
  {
    title: "_sender.sendFrame() sends the same frame to a client, in order",
    async run({ server: { Sender }, connect, log }) {
      const ends = await connect();
      for (const text of ["short", "long".repeat(1000)]) {
        const frame = Sender.frame(Buffer.from(text), { opcode: 1, fin: true, mask: false });
        await exchange(ends.server, ends.client, () => {
          ends.server.send("before");
          ends.server._sender!.sendFrame(frame, (error) => log.push(`sent ${error ?? ""}`));
          ends.server._sender!.sendFrame(frame);
          ends.server.send("after");
        });
      }
      ends.client.close();
      await ended(ends);
      log.push(...ends.log.client.filter((line) => line.startsWith("text")));
    },
    log: [
      ...["sent ", "sent "],
      ...['"short"', "4000 characters"].flatMap((text) => [
        'text "before"',
        `text ${text}`,
        `text ${text}`,
        'text "after"',
        'text "last"',
      ]),
    ],
  },
  {
    title: "A burst of compressed messages lets other things run",
    async run({ client, connect, log }) {
      // The zlib of Deno answers ws within the turn.
      const isExempt = client === IMPLEMENTATIONS.ws;
      const ends = await connect({ server: { perMessageDeflate: { threshold: 0 } } });
      let seen = 0;
      const all = new Promise<void>((resolve) => {
        ends.client.on("message", (data) => {
          if (`${data}` !== `message ${seen}`) log.push(`${data} instead of ${seen}`);
          if (seen === 0) setImmediate(() => log.push(`turn ${seen < 1000 || isExempt}`));
          if (++seen === 1000) resolve();
        });
      });
      for (let at = 0; at < 1000; at++) ends.server.send(`message ${at}`);
      await all;
      ends.client.close(1000);
      await ended(ends);
      log.push(ends.log.client.at(-1)!);
    },
    log: ["turn true", 'close 1000 "" (3)'],
  },
  {
    title: "_receiver reports the end, and _sender is busy while a message is compressed",
    async run({ connect, log }) {
      const ends = await connect({ server: { perMessageDeflate: { threshold: 0 } } });
      ends.client._receiver!.on("conclude", (code: number) => {
        log.push(`conclude ${code} ${ends.client.readyState}`);
      });
      ends.server.send("text");
      log.push(`${ends.server._sender!._state} ${ends.server._sender!._bufferedBytes}`);
      ends.server.close(1000);
      await ended(ends);
      const { _receiver: receiver, _isServer: isServer } = ends.server;
      log.push(`${receiver!._state} ${isServer} ${Object.keys(ends.server._extensions)}`);
    },
    log: ["1 4", "conclude 1000 2", "0 true permessage-deflate"],
  },
];
