import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  encodeFrame,
  type Frame,
  LocalProtocolError,
  MessageAssembler,
  Opcode,
  type OutgoingEvent,
  Protocol,
  type ProtocolEvent,
  type ProtocolOptions,
  type ProtocolState,
  response,
  type Role,
} from "../lib/core/mod.ts";
import { NO_FRAMES } from "../lib/core/protocol.ts";
import { complete } from "../lib/core/event.ts";
import { webTextCodec } from "../lib/core/utf8.ts";
import {
  assertSameBytes,
  concat,
  cut,
  cuts,
  detached,
  hex,
  OddBytes,
  pattern,
  single,
  utf8,
} from "./bytes.ts";
import { binary, fc, offsets, text } from "./property.ts";
import { Toy, ToyCodec } from "./toy_extension.ts";

const ROLES: Role[] = ["client", "server"];

/** The bytes of a frame as the role receives it. */
function incoming(role: Role, frame: Frame): Uint8Array {
  return encodeFrame(frame, role === "server" ? { mask: hex("37 fa 21 3d") } : {});
}

function textFrame(data: string, fin = true, opcode: Opcode = Opcode.Text): Frame {
  return { fin, opcode, payload: utf8(data) };
}

function closeFrame(digits: string): Frame {
  return { opcode: Opcode.Close, payload: hex(digits) };
}

function textEvent(data: string, messageFinished = true): ProtocolEvent {
  return { type: "text", data, frameFinished: true, messageFinished };
}

function closeEvent(closeCode: number, reason = ""): ProtocolEvent {
  return { type: "close", closeCode, reason };
}

const PING: ProtocolEvent = { type: "ping", payload: hex("01") };
const PONG: ProtocolEvent = { type: "pong", payload: hex("02") };
const TEXT = textEvent("a");
const BINARY: ProtocolEvent = {
  type: "binary",
  data: hex("03"),
  frameFinished: true,
  messageFinished: true,
};
const CLOSE = closeEvent(1000, "done");

/** A protocol in each of its states. */
const STATES: Record<ProtocolState, (role: Role) => Protocol> = {
  "open": (role) => new Protocol(role),
  "local-closing": (role) => {
    const protocol = new Protocol(role);
    protocol.send(CLOSE);
    return protocol;
  },
  "remote-closing": (role) => {
    const protocol = new Protocol(role);
    protocol.receive(incoming(role, closeFrame("03 e8")));
    protocol.next();
    return protocol;
  },
  "closed": (role) => {
    const protocol = STATES["remote-closing"](role);
    protocol.send(CLOSE);
    return protocol;
  },
};

/** The frames of a text whose last character is cut. */
const CUT_TEXT: Frame[] = [
  { opcode: Opcode.Text, fin: false, payload: hex("e2 82") },
  { opcode: Opcode.Continuation, payload: hex("ac") },
];

/** Reads a message on a connection that is idle afterwards. */
function leaveInput(role: Role, options?: ProtocolOptions): Protocol {
  const protocol = new Protocol(role, options);
  protocol.whole = true;
  protocol.receive(concat(CUT_TEXT.map((frame) => incoming(role, frame))));
  assert.equal([...protocol.events()].length, 1);
  protocol.release();
  return protocol;
}

/** Returns what a new connection reads, and the chunk, which it may have changed. */
function readAll(role: Role, options: ProtocolOptions): unknown[] {
  const protocol = new Protocol(role, options);
  const frames = [...CUT_TEXT, textFrame("abcd"), { ...textFrame("e"), rsv: 4 }];
  const input = concat(frames.map((frame) => incoming(role, frame)));
  protocol.receive(input);
  const read: unknown[] = [];
  try {
    for (const event of protocol.events()) read.push(event);
  } catch (error) {
    read.push(String(error));
  }
  return [...read, input, protocol.counts.framesReceived];
}

for (const role of ROLES) {
  describe(`Protocol as ${role}`, () => {
    it("Protocol gives what the peer sent as events", () => {
      const protocol = new Protocol(role);
      const frames: [Frame, ProtocolEvent][] = [
        [textFrame("a"), TEXT],
        [{ opcode: Opcode.Ping, payload: hex("01") }, PING],
        [textFrame("b", false), textEvent("b", false)],
        [{ opcode: Opcode.Pong, payload: hex("02") }, PONG],
        [textFrame("c", true, Opcode.Continuation), textEvent("c")],
        [{ opcode: Opcode.Binary, payload: hex("03") }, BINARY],
        [closeFrame("03 e8 64 6f 6e 65"), CLOSE],
      ];
      for (const [frame, event] of frames) {
        protocol.receive(incoming(role, frame));
        assert.deepEqual([...protocol.events()], [event]);
      }
    });

    it("Protocol sends events as frames that the other end reads", () => {
      const protocol = new Protocol(role);
      const peer = new Protocol(role === "client" ? "server" : "client");
      const events = [PING, textEvent("é", false), PONG, TEXT, BINARY, CLOSE];
      for (const event of events) peer.receive(protocol.send(event));
      assert.deepEqual([...peer.events()], events);
    });

    for (const state of Object.keys(STATES) as ProtocolState[]) {
      const sends = state === "open" || state === "remote-closing";
      const but = state === "local-closing" ? " but a pong" : "";

      it(`Protocol ${sends ? "sends" : "refuses to send"} anything${but} in the state ${state}`, () => {
        for (const event of [TEXT, BINARY, PING, PONG, CLOSE]) {
          const protocol = STATES[state](role);
          assert.equal(protocol.state, state);
          if (sends || (but && event === PONG)) assert.ok(protocol.send(event).length > 0);
          else {
            const message = `Cannot send a ${event.type} event in the state ${state}`;
            assert.throws(() => protocol.send(event), { name: "LocalProtocolError", message });
          }
        }
      });
    }

    it("Protocol goes from open over local-closing to closed", () => {
      const protocol = new Protocol(role);
      protocol.send(CLOSE);
      assert.equal(protocol.state, "local-closing");
      protocol.receive(incoming(role, textFrame("a")));
      assert.deepEqual([...protocol.events()], [TEXT], "messages still come");
      assert.equal(protocol.endsTransport, false);
      protocol.receive(incoming(role, closeFrame("0f a0")));
      assert.deepEqual([...protocol.events()], [closeEvent(4000)]);
      assert.equal(protocol.state, "closed");
      assert.equal(protocol.endsTransport, role === "server");
    });

    it("Protocol goes from open over remote-closing to closed", () => {
      const protocol = new Protocol(role);
      protocol.send(textEvent("a", false));
      protocol.receive(incoming(role, closeFrame("")));
      assert.deepEqual([...protocol.events()], [closeEvent(1005)]);
      assert.equal(protocol.state, "remote-closing");
      assert.equal(protocol.endsTransport, false);
      // RFC 6455 §5.5.1: the current message may be finished before the answer.
      protocol.send(textEvent("b"));
      assert.equal(protocol.state, "remote-closing");
      assert.deepEqual(protocol.send(closeEvent(1005)).length, role === "client" ? 6 : 2);
      assert.equal(protocol.state, "closed");
      assert.equal(protocol.endsTransport, role === "server");
    });

    it("Protocol goes from open to closed where both Close frames cross", () => {
      const protocol = new Protocol(role);
      protocol.receive(incoming(role, closeFrame("03 e9")));
      protocol.send(CLOSE);
      assert.equal(protocol.state, "local-closing", "what was not read yet does not count");
      assert.deepEqual([...protocol.events()], [closeEvent(1001)]);
      assert.equal(protocol.state, "closed");
    });

    it("Protocol reads nothing after a Close frame, in the same chunk or later", () => {
      const protocol = new Protocol(role);
      const more = incoming(role, textFrame("more"));
      protocol.receive(concat([incoming(role, closeFrame("03 e8")), more, hex("ff")]));
      protocol.receive(hex("ff ff"));
      assert.deepEqual([...protocol.events()], [closeEvent(1000)]);
      const held = protocol.bufferedAmount;
      protocol.receive(more);
      assert.deepEqual([...protocol.events()], []);
      assert.equal(protocol.bufferedAmount, held, "and holds nothing of it");
    });

    it("Protocol refuses input when it is closed, and after the end of the input", () => {
      const closed = STATES["closed"](role);
      const message = "Cannot receive input: the connection is closed";
      assert.throws(() => closed.receive(hex("81 00")), { name: "LocalProtocolError", message });
      closed.receive(null);
      for (const state of Object.keys(STATES) as ProtocolState[]) {
        const protocol = STATES[state](role);
        protocol.receive(null);
        const message = "Cannot receive more input: the input has ended";
        const expected = { name: "LocalProtocolError", message };
        assert.throws(() => protocol.receive(hex("81 00")), expected);
        assert.throws(() => protocol.receive(null), expected);
      }
    });

    /** The events for the end of the input. */
    const ends: Record<ProtocolState, ProtocolEvent[]> = {
      "open": [closeEvent(1006)],
      "local-closing": [closeEvent(1006)],
      "remote-closing": [],
      "closed": [],
    };
    for (const state of Object.keys(ends) as ProtocolState[]) {
      it(`Protocol is closed by the end of the input in the state ${state}`, () => {
        const protocol = STATES[state](role);
        protocol.receive(null);
        assert.deepEqual([...protocol.events()], ends[state]);
        assert.equal(protocol.state, "closed");
        assert.deepEqual([...protocol.events()], [], "once");
      });
    }

    it("Protocol gives the events before the end of the input first", () => {
      const frame = incoming(role, textFrame("a"));
      for (const rest of [hex(""), frame.subarray(0, 1), frame.subarray(0, -1)]) {
        const protocol = new Protocol(role);
        protocol.receive(concat([frame, frame, rest]));
        protocol.receive(null);
        assert.equal(protocol.state, "open");
        const events = [...protocol.events()].filter((event) => !isEmptyPiece(event));
        assert.deepEqual(events, [TEXT, TEXT, closeEvent(1006)]);
      }
    });

    /** Violations by a peer. The last frame contains the violation. */
    const violations: readonly [title: string, frames: Uint8Array[], closeCode: number][] = [
      ["a malformed header", [hex("83 80")], 1002],
      ["a frame masked the wrong way", [role === "client" ? hex("81 80") : hex("81 00")], 1002],
      ["a continuation of nothing", [incoming(role, textFrame("", true, 0))], 1002],
      ["an interleaved message", [
        incoming(role, textFrame("", false)),
        incoming(role, textFrame("")),
      ], 1002],
      ["invalid text", [incoming(role, { opcode: 1, payload: hex("ff") })], 1007],
      ["a close code that must not be sent", [incoming(role, closeFrame("03 ee"))], 1002],
      ["a Close of one byte", [incoming(role, closeFrame("03"))], 1002],
      ["a Close with invalid text", [incoming(role, closeFrame("03 e8 ff"))], 1007],
      ["a message too big", [incoming(role, { opcode: 2, payload: pattern(1001) })], 1009],
    ];
    for (const [title, frames, closeCode] of violations) {
      it(`Protocol throws after the events before ${title}, and at every later call`, () => {
        const protocol = new Protocol(role, { maxMessageSize: 1000 });
        const good = incoming(role, textFrame("a"));
        protocol.receive(concat([good, good, ...frames, good]));
        const events: ProtocolEvent[] = [];
        const errors = [thrown(() => {
          for (const event of protocol.events()) events.push(event);
        })];
        assert.deepEqual(events.slice(0, 2), [TEXT, TEXT]);
        assert.equal(events.length, 1 + frames.length);
        const held = protocol.bufferedAmount;
        protocol.receive(good);
        protocol.receive(good);
        assert.equal(protocol.bufferedAmount, held, "and holds nothing that comes later");
        errors.push(thrown(() => protocol.next()));
        protocol.receive(null);
        errors.push(thrown(() => protocol.next()));
        assert.equal(new Set(errors).size, 1);
        assert.deepEqual([errors[0]?.name, errors[0]?.closeCode], [
          "RemoteProtocolError",
          closeCode,
        ]);
      });
    }

    it("Protocol can send the Close that answers an error", () => {
      const protocol = new Protocol(role);
      protocol.receive(hex("83 80"));
      const { event } = thrown(() => protocol.next())!;
      assert.match(String(event.reason), /^The frame has the unknown opcode 3/);
      protocol.send(event);
      assert.equal(protocol.state, "local-closing");
      protocol.receive(hex("88 00"));
      assert.equal(protocol.next(), undefined, "and then takes no more");
      protocol.receive(null);
      assert.equal(protocol.next(), undefined);
      assert.equal(protocol.state, "closed");
    });

    it("Protocol has no answer to an error after its own Close frame", () => {
      const protocol = new Protocol(role);
      protocol.send(closeEvent(1000));
      protocol.receive(hex("83 80"));
      const { event, closeCode } = thrown(() => protocol.next())!;
      assert.deepEqual([event, closeCode, protocol.state], [undefined, 1002, "local-closing"]);
    });

    it("Protocol takes a Close in the middle of a fragmented message", () => {
      const protocol = new Protocol(role);
      const frames = [textFrame("a", false), closeFrame("03 e8")];
      protocol.receive(concat(frames.map((frame) => incoming(role, frame))));
      assert.deepEqual([...protocol.events()], [textEvent("a", false), closeEvent(1000)]);
    });

    for (const ownsInput of [true, false]) {
      it(`Protocol gives the same events wherever the input is cut (ownsInput ${ownsInput})`, () => {
        const masked = fc.array(validFrames, { maxLength: 6 });
        fc.assert(fc.property(masked, offsets(1500), (messages, at) => {
          const input = concat(messages.flat().map((frame) => incoming(role, frame)));
          const expected = run(role, { ownsInput }, [input]);
          assert.deepEqual(run(role, { ownsInput }, cut(input, ...at)), expected);
          assert.deepEqual(run(role, { ownsInput }, single(input)), expected);
          assert.equal(expected.error, undefined);
        }));
      });

      it(`Protocol fails alike wherever the input is cut (ownsInput ${ownsInput})`, () => {
        const messages = fc.array(validFrames, { minLength: 1, maxLength: 4 });
        const damage = fc.tuple(fc.nat(), fc.nat(255));
        const options = { ownsInput, maxMessageSize: 500, maxFrameSize: 400 };
        fc.assert(fc.property(messages, damage, offsets(900), (messages, [place, byte], at) => {
          const input = concat(messages.flat().map((frame) => incoming(role, frame)));
          input[place % input.length] = byte;
          const expected = run(role, options, [input]);
          assert.deepEqual(run(role, options, cut(input, ...at)), expected);
          assert.deepEqual(run(role, options, single(input)), expected);
        }));
      });
    }
  });
}

describe("Protocol.send", () => {
  it("Protocol.send sends the pieces after the first as continuations", () => {
    const protocol = new Protocol("server");
    const sent = [textEvent("a", false), PING, textEvent("b", false), textEvent("c"), TEXT];
    const bytes = sent.map((event) => protocol.send(event));
    assert.deepEqual(bytes.map(([first]) => first), [0x01, 0x89, 0x00, 0x80, 0x81]);
  });

  it("Protocol.send refuses a piece of another type within a message, and changes nothing", () => {
    const protocol = new Protocol("server");
    protocol.send(textEvent("a", false));
    const message = "Cannot send a binary event: the text message is not finished";
    assert.throws(() => protocol.send(BINARY), { name: "LocalProtocolError", message });
    assert.deepEqual(protocol.send(textEvent("b")), hex("80 01 62"));
    assert.deepEqual(protocol.send(BINARY), hex("82 01 03"));
  });

  it("Protocol.send refuses detached bytes, and changes nothing", () => {
    for (const extensions of [[], [new ToyCodec("toy", 0, {})]]) {
      const protocol = new Protocol("server", { extensions });
      for (const messageFinished of [true, false]) {
        const event: OutgoingEvent = { type: "binary", data: detached(4), messageFinished };
        assert.throws(() => protocol.send(event), TypeError);
        const write = () => protocol.writePiece(detached(4), messageFinished);
        assert.throws(write, TypeError);
        assert.throws(() => protocol.send({ type: "ping", payload: detached(4) }), TypeError);
      }
      assert.deepEqual(protocol.send(textEvent("b")), hex("81 01 62"));
    }
  });

  it("Protocol.send sends the bytes of a subclass, whatever its members return", () => {
    for (const length of [0, 100, 200, 10_000, 70_000]) {
      const plain = pattern(length);
      const sent = new Protocol("server").send({ type: "binary", data: new OddBytes(plain) });
      assert.deepEqual(sent, new Protocol("server").send({ type: "binary", data: plain }));
    }
    const payload = new OddBytes(pattern(100));
    const sent = new Protocol("server").send({ type: "ping", payload });
    assert.deepEqual(sent.subarray(2), pattern(100));
  });

  it("Protocol.send refuses what a control frame cannot carry, and changes nothing", () => {
    const protocol = new Protocol("server");
    const payload = new Uint8Array(126);
    const refused: ProtocolEvent[] = [
      { type: "ping", payload },
      { type: "pong", payload },
      closeEvent(1006),
      closeEvent(999),
      closeEvent(1000, "x".repeat(124)),
    ];
    for (const event of refused) {
      assert.throws(() => protocol.send(event), { name: "RangeError" });
      assert.equal(protocol.state, "open");
    }
    assert.equal(protocol.send({ type: "ping", payload: payload.subarray(1) }).length, 127);
  });

  it("Protocol writes a batch, and leaves a lent payload as it is", () => {
    for (const role of ["client", "server"] as const) {
      const protocol = new Protocol(role);
      const data = pattern(10000);
      protocol.write(TEXT);
      assert.equal(protocol.writePiece(data, true, true), true);
      protocol.write(CLOSE);
      assert.equal(protocol.state, "local-closing");
      assert.throws(() => protocol.write(TEXT), LocalProtocolError);
      assert.throws(() => protocol.writePiece("a", true), LocalProtocolError);
      const other = role === "client" ? "server" : "client";
      const peer = new Protocol(other);
      peer.receive(concat(protocol.encoder.take()));
      assert.deepEqual(run(other, {}, [], peer).frames, [TEXT, { ...BINARY, data }, CLOSE]);
      assertSameBytes(data, pattern(10000));
    }
  });

  it("Protocol.writePiece writes whole text as send() does, also observed and midway", () => {
    const written = (protocol: Protocol, text: string) => {
      protocol.writePiece(text, true);
      return concat(protocol.encoder.take());
    };
    for (const text of ["", "Hello", "é".repeat(63), "x".repeat(70000)]) {
      const expected = new Protocol("server").send(textEvent(text));
      const seen: Frame[] = [];
      const onFrame = (_: string, frame: Frame) => void seen.push(frame);
      assert.deepEqual(written(new Protocol("server"), text), expected);
      assert.deepEqual(written(new Protocol("server", { onFrame }), text), expected);
      assert.deepEqual(seen, [{ fin: true, rsv: 0, opcode: 1, payload: utf8(text) }]);
      const reader = new Protocol("server");
      reader.receive(written(new Protocol("client"), text));
      assert.deepEqual([...reader.events()], [textEvent(text)]);
    }
    const midway = new Protocol("server");
    midway.send(textEvent("a", false));
    assert.throws(() => midway.writePiece(hex("01"), true), LocalProtocolError);
    assert.deepEqual(written(midway, "b"), hex("80 01 62"));
    for (const state of ["local-closing", "closed"] as const) {
      const protocol = STATES[state]("server");
      assert.throws(() => protocol.writePiece("a", true), LocalProtocolError, state);
      assert.equal(protocol.encoder.size, 0);
    }
  });
});

describe("Protocol.whole", () => {
  /** What one end reads from the bytes: messages, other events, and the error that it fails with. */
  function readAll(role: Role, chunks: Uint8Array[], options: ProtocolOptions, whole: boolean) {
    const protocol = new Protocol(role, { ...options, ownsInput: true });
    protocol.whole = whole;
    assert.equal(protocol.whole, whole);
    const assembler = new MessageAssembler();
    const read: unknown[] = [];
    try {
      for (const chunk of chunks) {
        protocol.receive(chunk.slice());
        for (const event of protocol.events()) {
          const isPiece = event.type === "text" || event.type === "binary";
          if (whole && isPiece) assert.ok(event.frameFinished && event.messageFinished);
          const item = isPiece ? assembler.push(event) : event;
          if (item !== undefined) read.push(item);
        }
      }
      return read;
    } catch (error) {
      const { name, message } = error as Error;
      return [...read, { name, message }];
    }
  }

  const part = textFrame("a", false);
  const rest = textFrame("b", true, Opcode.Continuation);
  const bad: Frame = { opcode: Opcode.Text, payload: hex("61 62 ff 63") };
  const rows: [title: string, frames: Frame[], options?: ProtocolOptions][] = [
    ["short texts", [textFrame("Hello"), textFrame("")]],
    ["short bytes", [0, 70].map((n) => ({ opcode: Opcode.Binary, payload: pattern(n) }))],
    ...[125, 126, 127, 65535, 65536].map((n): [string, Frame[]] => [
      `${n} bytes`,
      [textFrame("x".repeat(n)), { opcode: Opcode.Binary, payload: pattern(n) }],
    ]),
    ["a ping between texts", [
      textFrame("a"),
      { opcode: Opcode.Ping, payload: hex("01") },
      textFrame("b"),
    ]],
    ["a ping between fragments", [part, { opcode: Opcode.Ping, payload: hex("01") }, rest]],
    ["fragments between texts", [textFrame("a"), part, rest, textFrame("b")]],
    ["binary fragments", [
      { opcode: Opcode.Binary, fin: false, payload: pattern(70) },
      { opcode: Opcode.Continuation, fin: false, payload: pattern(3000) },
      { opcode: Opcode.Continuation, payload: hex("01") },
    ]],
    ["a text within a message", [textFrame("a"), part, textFrame("b")]],
    ["no UTF-8, short", [textFrame("a"), bad]],
    ["no UTF-8, long", [{ opcode: Opcode.Text, payload: new Uint8Array(300).fill(0xff) }]],
    ["a message that is too long", [textFrame("a"), textFrame("abc")], { maxMessageSize: 2 }],
    ["a frame that is too long", [textFrame("a"), textFrame("abc")], { maxFrameSize: 2 }],
    ["what follows a Close", [textFrame("a"), closeFrame("03 e8"), textFrame("b")]],
  ];

  for (const role of ROLES) {
    for (const [title, frames, options = {}] of rows) {
      it(`Protocol.whole as ${role} gives what the pieces give: ${title}`, () => {
        const bytes = concat(frames.map((frame) => incoming(role, frame)));
        const expected = readAll(role, [bytes], options, false);
        assert.deepEqual(readAll(role, [bytes], options, true), expected);
        for (const at of [1, 2, 3, 5, 9, 130].filter((at) => at < bytes.length)) {
          const chunks = [bytes.subarray(0, at), bytes.subarray(at)];
          assert.deepEqual(readAll(role, chunks, options, true), expected, `cut at ${at}`);
        }
      });
    }
  }

  it("Protocol.whole tells onFrame of each frame, too", () => {
    const seen: unknown[] = [];
    const bytes = incoming("server", textFrame("a"));
    assert.deepEqual(
      readAll("server", [bytes], { onFrame: (_, frame) => seen.push(frame) }, true),
      [
        "a",
      ],
    );
    assert.equal(seen.length, 1);
  });
});

describe("Protocol and onFrame", () => {
  it("Protocol tells onFrame of each whole frame, in and out", () => {
    for (const chunk of [single, (bytes: Uint8Array) => [bytes]]) {
      const seen: [string, Frame][] = [];
      const protocol = new Protocol("server", { onFrame: (...frame) => seen.push(frame) });
      const frames: Frame[] = [
        { fin: false, rsv: 0, opcode: Opcode.Binary, payload: pattern(20) },
        { fin: true, rsv: 0, opcode: Opcode.Ping, payload: hex("01") },
        { fin: true, rsv: 0, opcode: Opcode.Continuation, payload: hex("") },
      ];
      for (const bytes of chunk(concat(frames.map((frame) => incoming("server", frame))))) {
        protocol.receive(bytes);
        while (protocol.next() !== undefined);
      }
      protocol.send(textEvent("é", false));
      protocol.send(closeEvent(1000));
      assert.deepEqual(seen, [
        ...frames.map((frame) => ["in", frame]),
        ["out", { fin: false, rsv: 0, opcode: Opcode.Text, payload: utf8("é") }],
        ["out", { fin: true, rsv: 0, opcode: Opcode.Close, payload: hex("03 e8") }],
      ]);
    }
  });
});

describe("response", () => {
  const answers: readonly [ProtocolEvent, ProtocolEvent | undefined][] = [
    [PING, { type: "pong", payload: hex("01") }],
    [PONG, undefined],
    [TEXT, undefined],
    [BINARY, undefined],
    [closeEvent(1001, "bye"), closeEvent(1001, "bye")],
    [closeEvent(1005), closeEvent(1005)],
    [closeEvent(1006), undefined],
  ];
  for (const [event, expected] of answers) {
    const code = event.type === "close" ? ` ${event.closeCode}` : "";
    it(`response answers ${event.type}${code} with ${expected?.type ?? "nothing"}`, () => {
      assert.deepEqual(response(event), expected);
      if (expected !== undefined) new Protocol("server").send(expected);
    });
  }
});

/** The frames of one message, one ping, or one pong. */
const validFrames: fc.Arbitrary<Frame[]> = fc.oneof(
  fc.tuple(fc.oneof(text, binary), offsets(300)).map(([message, at]) => {
    const parts = cut(typeof message === "string" ? utf8(message) : message, ...at);
    const opcode = typeof message === "string" ? Opcode.Text : Opcode.Binary;
    return parts.map((payload, i): Frame => ({
      fin: i === parts.length - 1,
      opcode: i === 0 ? opcode : Opcode.Continuation,
      payload,
    }));
  }),
  fc.tuple(fc.constantFrom(Opcode.Ping, Opcode.Pong), fc.uint8Array({ maxLength: 125 }))
    .map(([opcode, payload]): Frame[] => [{ opcode, payload }]),
);

interface Outcome {
  frames: ProtocolEvent[];
  error?: string;
  state: ProtocolState;
}

/** All events for the chunks, with the pieces of each frame joined. */
function run(
  role: Role,
  options: ProtocolOptions,
  chunks: readonly Uint8Array[],
  protocol = new Protocol(role, options),
): Outcome {
  const frames: ProtocolEvent[] = [];
  let begun: ProtocolEvent | undefined;
  const take = () => {
    for (let event = protocol.next(); event; event = protocol.next()) {
      begun = join(begun, event);
      if ("frameFinished" in begun && !begun.frameFinished) continue;
      frames.push(begun);
      begun = undefined;
    }
  };
  const error = thrown(() => {
    take();
    for (const chunk of chunks) {
      const input = chunk.slice();
      if (protocol.state === "closed") break;
      protocol.receive(input);
      take();
      // Masked input that is not owned has been copied, so the buffer may be reused.
      if (options.ownsInput === false && role === "server") input.fill(0);
    }
  });
  assert.ok(error === undefined || error.name === "RemoteProtocolError", error?.stack ?? "");
  return { frames, error: error && `${error.closeCode} ${error.message}`, state: protocol.state };
}

function join(begun: ProtocolEvent | undefined, event: ProtocolEvent): ProtocolEvent {
  if (begun?.type === "text" && event.type === "text") {
    return { ...event, data: begun.data + event.data };
  }
  if (begun?.type === "binary" && event.type === "binary") {
    return { ...event, data: concat([begun.data, event.data]) };
  }
  return event;
}

function isEmptyPiece(event: ProtocolEvent): boolean {
  return event.type === "text" && event.data === "" && !event.frameFinished;
}

interface Thrown extends Error {
  closeCode: number;
  event: ProtocolEvent & { reason: string };
}

function thrown(action: () => unknown): Thrown | undefined {
  try {
    action();
  } catch (error) {
    return error as Thrown;
  }
  return undefined;
}

describe("complete", () => {
  const events: readonly [event: OutgoingEvent, expected: ProtocolEvent][] = [
    [{ type: "text", data: "a" }, textEvent("a")],
    [{ type: "text", data: "a", messageFinished: false }, textEvent("a", false)],
    [{ type: "text", data: "a", frameFinished: false }, textEvent("a")],
    [{ type: "binary", data: hex("03") }, BINARY],
    [
      { type: "binary", data: hex("03"), messageFinished: false, frameFinished: false },
      { ...BINARY, messageFinished: false } as ProtocolEvent,
    ],
    [{ type: "ping" }, { type: "ping", payload: hex("") }],
    [{ type: "pong", payload: hex("02") }, PONG],
    [{ type: "close" }, closeEvent(1005)],
    [{ type: "close", closeCode: 1000, reason: "done" }, CLOSE],
  ];
  for (const [event, expected] of events) {
    it(`complete fills in ${JSON.stringify(event)}`, () => {
      assert.deepEqual(complete(event), expected);
    });
  }

  const wrong: readonly [event: unknown, message: string][] = [
    [{ type: "text" }, "Expected the data of a text event to be a string, received undefined"],
    [
      { type: "binary", data: "a" },
      "Expected the data of a binary event to be a Uint8Array, received string",
    ],
    [
      { type: "ping", payload: 1 },
      "Expected the data of a ping event to be a Uint8Array, received number",
    ],
    [{ type: "none" }, "There is no event of the type none"],
    [undefined, "There is no event of the type undefined"],
  ];
  for (const [event, message] of wrong) {
    it(`complete refuses ${JSON.stringify(event)}`, () => {
      assert.throws(() => complete(event as OutgoingEvent), { name: "TypeError", message });
    });
  }

  it("Protocol says which role it expected", () => {
    const expected = 'Expected role to be "client" or "server", received ';
    for (const [role, received] of [["peer", '"peer"'], [1, "number"], [undefined, "undefined"]]) {
      const message = `${expected}${received}`;
      assert.throws(() => new Protocol(role as Role), { name: "TypeError", message });
    }
  });
});

describe("Protocol: what it has and counts", () => {
  it("Protocol has and counts nothing in the beginning", () => {
    const protocol = new Protocol("client");
    const { held, bufferedAmount, bufferedMemory, pending, counts } = protocol;
    assert.deepEqual([held, bufferedAmount, bufferedMemory, pending], [0, 0, 0, false]);
    assert.deepEqual(counts, NO_FRAMES);
  });

  it("Protocol has the bytes that it has received and not read", () => {
    const protocol = new Protocol("client");
    protocol.receive(hex("82 01 07 82"));
    assert.equal(protocol.bufferedAmount, 4);
    assert.equal([...protocol.events()].length, 1);
    assert.equal(protocol.bufferedAmount, 0, "the beginning of a header has been read");
  });

  it("Protocol counts frames, pings and pongs", () => {
    const protocol = new Protocol("client");
    for (const event of [PING, PONG, PONG, TEXT]) protocol.send(event);
    for (const opcode of [Opcode.Ping, Opcode.Ping, Opcode.Pong, Opcode.Text]) {
      protocol.receive(incoming("client", { opcode, payload: hex("") }));
    }
    assert.equal([...protocol.events()].length, 4);
    assert.deepEqual(protocol.counts, {
      ...NO_FRAMES,
      framesSent: 4,
      pingsSent: 1,
      pongsSent: 2,
      framesReceived: 4,
      pingsReceived: 2,
      pongsReceived: 1,
    });
  });

  it("Protocol refuses unknown options, and reserved bits without extensions", () => {
    const options = { maxSize: 1 } as ProtocolOptions;
    assert.throws(() => new Protocol("client", options), { code: "unknown-option" });
    for (const first of ["c1", "a1", "91"]) {
      const protocol = new Protocol("client");
      protocol.receive(hex(`${first} 00`));
      assert.throws(() => protocol.next(), { closeCode: 1002 });
    }
  });

  it("Protocol reads messages into the memory that it is given", () => {
    const lengths: number[] = [];
    const allocate = (length: number) => {
      lengths.push(length);
      return new Uint8Array(length);
    };
    const protocol = new Protocol("client", { allocate });
    protocol.whole = true;
    protocol.receive(hex("82 04 01 02"));
    assert.deepEqual([protocol.next(), protocol.held], [undefined, 2]);
    protocol.receive(hex("03 04"));
    const event = { ...BINARY, data: hex("01 02 03 04") };
    assert.deepEqual([protocol.next(), protocol.held, lengths], [event, 0, [4]]);
  });

  it("Protocol.maxMessageSize limits the next messages", () => {
    const protocol = new Protocol("client");
    protocol.maxMessageSize = 2;
    protocol.receive(hex("82 02 01 02 82 02 01 02 82 01 01 82 02 01 02"));
    for (let message = 0; message < 2; message++) assert.equal(protocol.next()?.type, "binary");
    protocol.maxMessageSize = 1;
    assert.equal(protocol.next()?.type, "binary");
    assert.throws(() => protocol.next(), { message: /maxMessageSize \(1\)/, closeCode: 1009 });
  });

  it("Protocol.maxMessageSize limits a message after the first chunk was released", () => {
    const protocol = new Protocol("client");
    protocol.maxMessageSize = 2;
    protocol.receive(hex("82 02 01 02"));
    assert.equal(protocol.next()?.type, "binary");
    protocol.release();
    protocol.receive(hex("82 03 01 02 03"));
    assert.throws(() => protocol.next(), { message: /maxMessageSize \(2\)/, closeCode: 1009 });
  });

  it("Protocol releases a chunk that was read, unless an extension may keep a view of it", () => {
    const extensions = [new Toy("a", 1).finalize()];
    for (const [options, isExtended] of [[{}, false], [{ extensions }, true]] as const) {
      const protocol = new Protocol("client", options);
      assert.equal(protocol.extended, isExtended);
      protocol.receive(hex("89 00"));
      assert.equal(protocol.release(), false, "not read");
      assert.equal(protocol.next()?.type, "ping");
      assert.equal(protocol.release(), !isExtended);
    }
  });

  it("Protocol goes on wherever a chunk ended that was released", () => {
    const bytes = hex(
      "01 02 61 62 89 02 03 04 80 01 63 82 7e 00 7e" + " 05".repeat(126) + " 83 00",
    );
    const expected = [
      { type: "ping", payload: hex("03 04") },
      textEvent("abc"),
      { type: "binary", data: hex("05".repeat(126)), frameFinished: true, messageFinished: true },
    ];
    const ways = [false, true].flatMap((isBorrowed) =>
      cuts(bytes).map((chunks) => ({ isBorrowed, chunks }))
    );
    for (const { isBorrowed, chunks } of ways) {
      const protocol = new Protocol("client", { ownsInput: true });
      protocol.whole = true;
      const events: ProtocolEvent[] = [];
      assert.throws(
        () => {
          for (const chunk of chunks) {
            const memory = chunk.slice();
            protocol.receive(memory);
            for (const event of protocol.events()) events.push(event);
            protocol.release(isBorrowed);
            if (isBorrowed) memory.fill(0xff);
          }
        },
        { message: /\(frame at byte 141\)$/ },
      );
      assert.deepEqual(events, expected);
      assert.equal(protocol.counts.framesReceived, 4);
    }
  });

  it("Protocol reads with its own options what follows another connection's input", () => {
    const textCodec = { ...webTextCodec, decode: () => "decoded" };
    const options: (() => ProtocolOptions)[] = [
      ...[() => ({}), () => ({ maxFrameSize: 3 }), () => ({ maxMessageSize: 3 })],
      ...[() => ({ ownsInput: true }), () => ({ textCodec }), () => ({ onFrame: () => {} })],
      () => ({ extensions: [new Toy("a", 0).finalize()] }),
    ];
    const kinds = ROLES.flatMap((role) => options.map((of) => ({ role, of })));
    const alone = kinds.map(({ role, of }) => readAll(role, of()));
    for (const before of kinds) {
      kinds.forEach(({ role, of }, i) => {
        leaveInput(before.role, before.of());
        assert.deepEqual(readAll(role, of()), alone[i]);
      });
    }
  });

  it("Protocol shares no input with a connection that has not read its own", () => {
    leaveInput("client");
    const protocols = ["a", "b", "c"].map((text) => {
      const protocol = new Protocol("client");
      const [first, second] = cut(incoming("client", textFrame(text)), 1);
      protocol.receive(first);
      assert.equal(protocol.next(), undefined);
      return { protocol, second, text };
    });
    for (const { protocol, second, text } of protocols) {
      protocol.release();
      protocol.receive(second);
      assert.deepEqual(protocol.next(), textEvent(text));
    }
  });

  it("Protocol counts and reports its own frames after it takes another connection's input", () => {
    const first = leaveInput("client");
    const seen: string[] = [];
    const second = new Protocol("client", { onFrame: () => seen.push("second") });
    const third = new Protocol("client", { onFrame: () => seen.push("third") });
    for (const protocol of [second, third]) {
      protocol.receive(hex("89 00 89 00"));
      assert.equal([...protocol.events()].length, 2);
      assert.equal(protocol.release(), true);
    }
    assert.deepEqual(seen, ["second", "second", "third", "third"]);
    first.receive(hex("89 00 83 00"));
    assert.equal(first.next()?.type, "ping");
    assert.throws(() => first.next(), { message: /\(frame at byte 9\)$/ });
    const counts = [first, second, third].map(({ counts }) => counts.framesReceived);
    assert.deepEqual(counts, [3, 2, 2]);
  });

  it("Protocol allocates its messages itself after it takes another connection's input", () => {
    const allocated: string[] = [];
    for (const name of ["a", "b"]) {
      const allocate = (length: number) => {
        allocated.push(name);
        return new Uint8Array(length);
      };
      const protocol = new Protocol("client", { allocate });
      protocol.whole = true;
      protocol.receive(hex("02 01 61 80 01 62"));
      assert.equal(protocol.next()?.type, "binary");
      assert.equal(protocol.release(), true);
    }
    assert.deepEqual(allocated, ["a", "b"]);
  });

  it("Protocol leaves no input to others after an error", () => {
    const failing: [chunk: string, options?: ProtocolOptions][] = [
      ["83 00"],
      ["81 01 ff"],
      ["82 01 00", { maxMessageSize: 0 }],
      ["02 01 61 80 01 62", { allocate: () => new Uint8Array(1) }],
    ];
    for (const [chunk, options] of failing) {
      const protocol = new Protocol("client", options);
      protocol.whole = true;
      protocol.receive(hex(chunk));
      assert.throws(() => [...protocol.events()]);
      protocol.release();
      const next = new Protocol("client");
      next.whole = true;
      next.receive(hex("02 01 63 80 01 64"));
      assert.deepEqual(next.next(), { ...BINARY, data: hex("63 64") });
    }
  });

  it("Protocol leaves no input to others that it reads, even if a callback releases it", () => {
    for (const reads of [false, true]) {
      const other = new Protocol("client");
      other.whole = true;
      const protocol: Protocol = new Protocol("client", {
        allocate(length) {
          if (length === 4) return new Uint8Array(4);
          if (reads) assert.equal(protocol.next(), undefined);
          assert.equal(protocol.release(), true);
          other.receive(hex("82 05 62 62 62 62 62"));
          assert.deepEqual(other.next(), { ...BINARY, data: hex("62 62 62 62 62") });
          return new Uint8Array(length);
        },
      });
      protocol.whole = true;
      protocol.receive(hex("02 01 61 80 05 61 61 61 61 61"));
      assert.throws(() => protocol.next());
    }
  });

  it("Protocol leaves no input to others whose chunks have changed their length", () => {
    for (const [grown, rest] of [["00 89 00 89", "00"], ["00 89 01 61", "89 00"]]) {
      const buffer = new ArrayBuffer(2, { maxByteLength: 4 } as object);
      const growing = new Uint8Array(buffer);
      const first = new Protocol("client");
      for (const chunk of [hex("89"), growing, hex(rest)]) first.receive(chunk);
      (buffer as unknown as { resize(length: number): void }).resize(4);
      growing.set(hex(grown));
      assert.equal([...first.events()].every(({ type }) => type === "ping"), true);
      assert.equal(first.release(), true);
      const second = new Protocol("client");
      second.receive(hex("89"));
      assert.equal(second.next(), undefined);
      assert.equal(second.bufferedAmount, 0);
      second.receive(hex("00"));
      assert.equal(second.next()?.type, "ping");
    }
  });

  it("Protocol releases nothing while it has received nothing", () => {
    const protocol = new Protocol("server");
    assert.equal(protocol.release(), true);
    assert.equal(protocol.counts.framesReceived, 0);
  });

  it("Protocol.write copies the bytes of a message", () => {
    const protocol = new Protocol("server");
    const data = pattern(20_000);
    protocol.write({ type: "binary", data, frameFinished: true, messageFinished: true });
    data.fill(0);
    const payload = concat(protocol.encoder.take()).slice(4);
    assertSameBytes(payload, pattern(20_000));
  });

  it("Protocol is not pending after an extension has failed", () => {
    const failing = new Toy("a", 1, { rsv: 4, slow: true }).finalize();
    const protocol = new Protocol("client", { extensions: [failing], onReady: () => {} });
    protocol.receive(hex("82 01 00"));
    for (let again = 0; again < 2; again++) {
      assert.throws(() => protocol.next(), /Expected the bits of a/);
      assert.equal(protocol.pending, false);
    }
  });
});
