/** What happens at both ends of a connection, for everything that one end can do. */
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { closed, type Ends, type Log, type PairOptions } from "./implementations.ts";

export interface Scenario {
  title: string;
  options?: PairOptions;
  run(ends: Ends): void | Promise<void>;
  /** What the client logs, without "open". */
  client: Log;
  server: Log;
}

/** The head and payload of a frame that a server must not send. */
function raw(ends: Ends, ...bytes: number[]): void {
  ends.server._socket!.write(Buffer.from(bytes));
}

/** A violation by the server: the client reports an error, and answers with a close code. */
function violation(title: string, bytes: number[], error: string, code = 1002): Scenario {
  return {
    title: `The client reports ${title}`,
    run: (ends) => raw(ends, ...bytes),
    client: [`error ${error} (2)`, 'close 1006 "" (3)'],
    server: [`close ${code} "" (3)`],
  };
}

/** Returns what a callback is given. */
function argument(call: (callback: (error: unknown) => void) => void): Promise<unknown> {
  return new Promise(call);
}

const CLOSED = 'close 1005 "" (3)';

export const SCENARIOS: readonly Scenario[] = [
  {
    title: "Messages keep their type and order",
    run({ client }) {
      client.send("text");
      client.send(Buffer.from("bytes"));
      client.send(new Uint8Array([104, 105]).buffer);
      client.send(new DataView(new Uint8Array([111, 107]).buffer));
      client.send(42);
      client.send("");
      client.send("as binary", { binary: true });
      client.send(Buffer.from("as text"), { binary: false });
      client.send(Buffer.from("also text"), { binary: undefined });
      client.send(Buffer.from("not text"), {});
      client.close();
    },
    client: [CLOSED],
    server: [
      'text "text"',
      'binary "bytes"',
      'binary "hi"',
      'binary "ok"',
      'text "42"',
      'text ""',
      'binary "as binary"',
      'text "as text"',
      'text "also text"',
      'binary "not text"',
      CLOSED,
    ],
  },
  {
    title: "A message of several frames arrives whole, with a ping between its frames",
    run({ client }) {
      client.send("one ", { fin: false });
      client.ping("between");
      client.send(Buffer.from("two "), { fin: false });
      client.send("three");
      client.close(1000, "done");
    },
    client: ['pong "between"', 'close 1000 "done" (3)'],
    server: ['ping "between"', 'text "one two three"', 'close 1000 "done" (3)'],
  },
  {
    title: "The code and reason of the server's close reach the client",
    run: ({ server }) => server.close(4321, Buffer.from("gründe")),
    client: ['close 4321 "gründe" (3)'],
    server: ['close 4321 "gründe" (3)'],
  },
  {
    title: "The fraction of a close code is cut off",
    run: ({ server }) => server.close(1000.5),
    client: ['close 1000 "" (3)'],
    server: ['close 1000 "" (3)'],
  },
  {
    title: "The callback of send() is given what the socket gives its own",
    options: { client: { generateMask: (mask) => mask.fill(1) } },
    async run({ client, server, log }) {
      const given = [
        await argument((callback) => client._socket!.write("", callback)),
        await argument((callback) => client.send("", callback)),
        await argument((callback) => server.send("", callback)),
      ];
      client.close();
      await closed(client);
      log.client.push(`${new Set(given).size} kind`);
    },
    client: ['text ""', CLOSED, "1 kind"],
    server: ['text ""', CLOSED],
  },
  {
    title: "terminate() cuts the connection",
    run: ({ client }) => client.terminate(),
    client: ['close 1006 "" (3)'],
    server: ['close 1006 "" (3)'],
  },
  {
    title: "Messages sent before terminate() arrive",
    run({ server }) {
      server.send("last words");
      server.terminate();
    },
    client: ['text "last words"', 'close 1006 "" (3)'],
    server: ['close 1006 "" (3)'],
  },
  {
    title: "Messages leave before what a program does with the socket",
    async run({ client, server }) {
      server.send("to the client");
      server._socket!.write(Buffer.from("8a0179", "hex"));
      await once(client, "pong");
      client.send("to the server");
      client._socket!.end();
    },
    client: ['text "to the client"', 'pong "y"', 'close 1006 "" (3)'],
    server: ['text "to the server"', 'close 1006 "" (3)'],
  },
  {
    title: "An option of send() that is undefined is false",
    run({ client }) {
      client.send("one ", { fin: undefined });
      client.send("two", { compress: undefined });
      client.close();
    },
    client: [CLOSED],
    server: ['text "one two"', CLOSED],
  },
  {
    title: "Pings are answered unless autoPong is false",
    options: { client: { autoPong: false } },
    async run({ client, server }) {
      client.ping("answered");
      await once(client, "pong");
      server.ping("ignored");
      await once(client, "ping");
      server.pong("unasked");
      await once(client, "pong");
      client.close();
    },
    client: ['pong "answered"', 'ping "ignored"', 'pong "unasked"', CLOSED],
    server: ['ping "answered"', CLOSED],
  },
  {
    title: "A message that is too long fails with 1009",
    options: { server: { port: 0, maxPayload: 10 } },
    run: ({ client }) => client.send("eleven char"),
    client: ['close 1009 "" (3)'],
    server: [
      "error WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: Max payload size exceeded (2)",
      'close 1006 "" (3)',
    ],
  },
  {
    title: "Too many frames of a message fail with 1008",
    options: { server: { port: 0, maxFragments: 2 } },
    run({ client }) {
      for (let i = 0; i < 3; i++) client.send("a", { fin: false });
    },
    client: ['close 1008 "" (3)'],
    server: [
      "error WS_ERR_TOO_MANY_BUFFERED_PARTS: Too many message fragments (2)",
      'close 1006 "" (3)',
    ],
  },
  violation(
    "an unknown opcode",
    [0x85, 0],
    "WS_ERR_INVALID_OPCODE: Invalid WebSocket frame: invalid opcode 5",
  ),
  violation(
    "a continuation without a message",
    [0x80, 0],
    "WS_ERR_INVALID_OPCODE: Invalid WebSocket frame: invalid opcode 0",
  ),
  violation(
    "a text message within a message",
    [0x02, 0, 0x81, 0],
    "WS_ERR_INVALID_OPCODE: Invalid WebSocket frame: invalid opcode 1",
  ),
  violation(
    "a binary message within a message",
    [0x02, 0, 0x82, 0],
    "WS_ERR_INVALID_OPCODE: Invalid WebSocket frame: invalid opcode 2",
  ),
  violation(
    "RSV1 without an extension",
    [0xc1, 0],
    "WS_ERR_UNEXPECTED_RSV_1: Invalid WebSocket frame: RSV1 must be clear",
  ),
  violation(
    "RSV2",
    [0xa1, 0],
    "WS_ERR_UNEXPECTED_RSV_2_3: Invalid WebSocket frame: RSV2 and RSV3 must be clear",
  ),
  violation(
    "a fragmented ping",
    [0x09, 0],
    "WS_ERR_EXPECTED_FIN: Invalid WebSocket frame: FIN must be set",
  ),
  violation(
    "a ping that is too long",
    [0x89, 126, 0, 126],
    "WS_ERR_INVALID_CONTROL_PAYLOAD_LENGTH: Invalid WebSocket frame: invalid payload length 126",
  ),
  violation(
    "a Close of one byte",
    [0x88, 1, 0],
    "WS_ERR_INVALID_CONTROL_PAYLOAD_LENGTH: Invalid WebSocket frame: invalid payload length 1",
  ),
  violation(
    "a close code that must not be sent",
    [0x88, 2, 0x03, 0xed],
    "WS_ERR_INVALID_CLOSE_CODE: Invalid WebSocket frame: invalid status code 1005",
  ),
  violation(
    "a frame with a mask",
    [0x81, 0x80, 0, 0, 0, 0],
    "WS_ERR_UNEXPECTED_MASK: Invalid WebSocket frame: MASK must be clear",
  ),
  violation(
    "text that is not UTF-8",
    [0x81, 1, 0xff],
    "WS_ERR_INVALID_UTF8: Invalid WebSocket frame: invalid UTF-8 sequence",
    1007,
  ),
  violation(
    "a close reason that is not UTF-8",
    [0x88, 3, 0x03, 0xe8, 0xff],
    "WS_ERR_INVALID_UTF8: Invalid WebSocket frame: invalid UTF-8 sequence",
    1007,
  ),
  violation(
    "a length of 2^53 bytes",
    [0x82, 127, 0, 0x20, 0, 0, 0, 0, 0, 0],
    "WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: Unsupported WebSocket frame: payload length > 2^53 - 1",
    1009,
  ),
  {
    title: "The server reports a frame without a mask",
    run: ({ client }) => void client._socket!.write(Buffer.from([0x81, 0])),
    client: ['close 1002 "" (3)'],
    server: [
      "error WS_ERR_EXPECTED_MASK: Invalid WebSocket frame: MASK must be set (2)",
      'close 1006 "" (3)',
    ],
  },
  {
    title: "Text that is not UTF-8 is accepted with skipUTF8Validation",
    options: { client: { skipUTF8Validation: true } },
    async run(ends) {
      raw(ends, 0x81, 1, 0xff);
      await once(ends.client, "message");
      ends.client.close();
    },
    client: ['text "\ufffd"', CLOSED],
    server: [CLOSED],
  },
  {
    title: "Text that is not UTF-8 may be cut anywhere with skipUTF8Validation",
    options: { client: { skipUTF8Validation: true } },
    async run(ends) {
      raw(ends, 0x01, 1, 0xc3, 0x00, 0, 0x00, 2, 0x28, 0xe2, 0x80, 1, 0xf0);
      await once(ends.client, "message");
      ends.client.close();
    },
    client: ['text "\ufffd(\ufffd\ufffd"', CLOSED],
    server: [CLOSED],
  },
  {
    title: "Frames with a character cut in two are one text",
    async run(ends) {
      raw(ends, 0x01, 2, 0x61, 0xc3, 0x80, 2, 0xa9, 0x62);
      await once(ends.client, "message");
      ends.client.close();
    },
    client: ['text "aéb"', CLOSED],
    server: [CLOSED],
  },
  {
    title: "A socket that ends without a Close frame is 1006",
    run: ({ server }) => void server._socket!.end(),
    client: ['close 1006 "" (3)'],
    server: ['close 1006 "" (3)'],
  },
  {
    title: "Compressed messages arrive, also long ones and those of several frames",
    options: { server: { port: 0, perMessageDeflate: { threshold: 0 } } },
    async run({ client, server }) {
      client.send("short");
      client.send("x".repeat(100_000));
      client.send("plain", { compress: false });
      client.send("in ", { fin: false });
      client.send("pieces");
      server.send("back");
      await once(client, "message");
      client.close();
    },
    client: ['text "back"', CLOSED],
    server: [
      'text "short"',
      "text 100000 characters",
      'text "plain"',
      'text "in pieces"',
      CLOSED,
    ],
  },
  {
    title: "Only one event is emitted in a turn with allowSynchronousEvents: false",
    options: { client: { allowSynchronousEvents: false } },
    async run({ client, server, log }) {
      const turns = new Set<number>();
      let turn = 0;
      const count = () => {
        turn++;
        if (client.readyState !== client.CLOSED) setImmediate(count);
      };
      count();
      client.on("message", () => turns.add(turn));
      for (let i = 0; i < 3; i++) server.send(`${i}`);
      server.close();
      await closed(client);
      log.client.push(`${turns.size} turns`);
    },
    client: ['text "0"', 'text "1"', 'text "2"', CLOSED, "3 turns"],
    server: [CLOSED],
  },
];
