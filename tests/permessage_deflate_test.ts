import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  encodeFrame,
  type Extension,
  type ExtensionFactory,
  type ExtensionParameters,
  type Frame,
  type HandshakeError,
  Opcode,
  PerMessageDeflate,
  type PerMessageDeflateOptions,
  Protocol,
  type ProtocolEvent,
  RemoteProtocolError,
  type Role,
  supportedExtensions,
} from "../lib/core/mod.ts";
import type { DeflateEngine, Deflater, DeflaterOptions, Inflater } from "../lib/core/deflate.ts";
import { type EncodedFrame, type OutgoingFrame, PENDING } from "../lib/core/extension.ts";
import { deflateEngine } from "../lib/zlib.ts";
import { connect, serve, type WebSocketConnection, type WebSocketError } from "../mod.ts";
import { pair } from "../lib/testing.ts";
import { collect, until, urlOf, withServer } from "./support.ts";
import { assertSameBytes, concat, hex, pattern, utf8 } from "./bytes.ts";

/** Parameters in the form "name" or "name=value", one after the other. */
function parameters(text: string): ExtensionParameters {
  return text.split("; ").filter((one) => one !== "").map((one) => {
    const [name, value] = one.split("=");
    return [name, value] as const;
  });
}

function written(list: ExtensionParameters): string {
  return list.map(([name, value]) => value === undefined ? name : `${name}=${value}`).join("; ");
}

/** An engine that copies its input, and counts what is open. */
function copyingEngine(): {
  engine: DeflateEngine;
  made: DeflaterOptions[];
  count: { deflaters: number; inflaters: number };
} {
  const made: DeflaterOptions[] = [];
  const count = { deflaters: 0, inflaters: 0 };
  const engine: DeflateEngine = {
    deflater: (options) => {
      made.push(options);
      count.deflaters++;
      return {
        deflate: (input) => concat([input, hex("00 00 ff ff")]),
        deflateLater: () => assert.fail("not asked for"),
        reset: () => {},
        close: () => void count.deflaters--,
      };
    },
    inflater: () => assert.fail("not asked for"),
  };
  return { engine, made, count };
}

const factory = (options: PerMessageDeflateOptions = {}) =>
  new PerMessageDeflate({ engine: deflateEngine, memory: "high", ...options });

/** An engine whose output is its input, in pieces. `work` ends what is under way on another thread. */
class SlowEngine implements DeflateEngine {
  readonly later: number[] = [];
  readonly work: (() => void)[] = [];
  open = 0;
  fails: Error | undefined;
  readonly #size: number;
  /** How many bytes are only given at the end of a message. */
  readonly #kept: number;

  constructor(size: number, kept: number) {
    this.#size = size;
    this.#kept = kept;
  }

  deflater(): Deflater {
    this.open++;
    const deflate = (input: Uint8Array) => concat([input, hex("00 00 ff ff")]);
    return {
      deflate,
      deflateLater: (input, done) => {
        this.later.push(input.length);
        this.work.push(() => done(this.fails, this.fails ? hex("") : deflate(input)));
      },
      reset: () => {},
      close: () => void this.open--,
    };
  }

  inflater(): Inflater {
    this.open++;
    let input: Uint8Array = hex("");
    let kept = this.#kept;
    const available = () => Math.max(0, input.length - kept);
    const next = () => {
      assert.ok(available() > 0, "nothing was asked for in vain");
      const output = input.slice(0, Math.min(this.#size, available()));
      input = input.subarray(output.length);
      return output;
    };
    return {
      push: (bytes) => input = concat([input, bytes]),
      finish: () => kept = 0,
      get idle() {
        return available() === 0;
      },
      next,
      nextLater: (done) => {
        this.later.push(input.length);
        this.work.push(() => done(this.fails, next()));
      },
      reset: () => {},
      close: () => void this.open--,
    };
  }
}

describe("permessage-deflate: what is done on another thread", () => {
  const slow = (size = 65536, kept = 0) => {
    const engine = new SlowEngine(size, kept);
    const extension = new PerMessageDeflate({ engine, memory: "low" })
      .finalize(parameters("server_no_context_takeover"));
    return { engine, extension };
  };
  const frame = (size: number) => ({
    opcode: Opcode.Binary,
    fin: true,
    rsv: 0,
    payload: new Uint8Array(size).fill(7),
  });

  const checkFrame = (actual: OutgoingFrame | Error | undefined, size: number) => {
    const { payload, ...rest } = actual as OutgoingFrame;
    assert.deepEqual(rest, { opcode: Opcode.Binary, fin: true, rsv: 4 });
    assertSameBytes(payload, frame(size).payload);
  };

  it("a message from 32 KiB on is compressed there, a shorter one is not", () => {
    for (const [size, isLater] of [[32767, false], [32768, true]] as const) {
      const { engine, extension } = slow();
      const done: (OutgoingFrame | Error)[] = [];
      const later: EncodedFrame = (error, frame) => void done.push(error ?? frame);
      const encoded = extension.encode(frame(size), later);
      assert.deepEqual(engine.later, isLater ? [size] : []);
      if (!isLater) checkFrame(encoded, size);
      else assert.equal(encoded, undefined);
      engine.work.forEach((work) => work());
      assert.equal(done.length, isLater ? 1 : 0);
      if (isLater) checkFrame(done[0], size);
      assert.equal(engine.open, 0, "closed after the message");
      checkFrame(extension.encode(frame(size)), size);
      assert.equal(engine.later.length, done.length, "not without a callback");
    }
  });

  it("an error is passed on with the frame as it was", () => {
    const { engine, extension } = slow();
    engine.fails = new Error("out of memory");
    let given: unknown[] = [];
    const sent = frame(40_000);
    extension.encode(sent, (...args) => void (given = args));
    engine.work.forEach((work) => work());
    assert.equal(given.length, 2);
    assert.equal(given[0], engine.fails);
    assert.equal(given[1], sent);
    assert.equal(engine.open, 1);
    extension.close();
    assert.equal(engine.open, 0);
  });

  /** The sizes of the pieces of a frame, and what is inflated elsewhere: how much is left then. */
  const rows: readonly [
    title: string,
    pieces: number[],
    size: number,
    later: number[],
    kept?: number,
  ][] = [
    ["every byte of output is given", [3, 1, 2], 1, []],
    ["the end of the output is not inflated elsewhere", [140_000], 140_000, [140_000], 10],
    ["the end of a single byte of output is not", [131_072], 131_072, [131_072], 131_071],
    ["the end of short output is not either", [131_072, 1000], 65_536, [131_072, 65_536], 1000],
    [
      "an engine may inflate the whole message at its end",
      [65_536, 65_536],
      65_536,
      [131_072],
      2e5,
    ],
    ["a short message is inflated at once", [131_071], 131_071, []],
    ["a message of 128 KiB is inflated elsewhere", [131_072], 131_072, [131_072]],
    ["a message of long pieces", [65_536, 65_536], 65_536, [65_536]],
    ["the first output of a short piece is not", [131_072, 1023, 1024], 131_072, [131_072, 1024]],
    ["the second output of a short piece is", [131_072, 1000], 600, [
      ...Array.from({ length: 219 }, (_, i) => 131_072 - 600 * i),
      400,
    ]],
    ["output counts too", [70_000], 61_072, [8928]],
    ["output counts too, to the byte", [70_000], 61_071, []],
  ];
  for (const [title, sizes, size, later, kept] of rows) {
    for (const count of [1, 2]) {
      it(`${title}, in ${count} frames`, () => {
        const { engine, extension } = slow(size, kept);
        const outputs: Uint8Array[] = [];
        const headers = Array.from({ length: count }, (_, i) => ({
          fin: i === count - 1,
          rsv: i === 0 ? 4 : 0,
          opcode: i === 0 ? Opcode.Binary : Opcode.Continuation,
          masked: false,
          length: 7,
        }));
        // With two frames, the first one has all pieces but the last, or ends with an empty piece.
        const split = Math.max(sizes.length - 1, 1);
        const pieces = sizes.map((size, i) => ({
          header: headers[count === 2 && i >= split ? 1 : 0],
          payload: pattern(size),
          last: i === sizes.length - 1 || (count === 2 && i === split - 1),
        }));
        if (count === 2 && sizes.length === 1) {
          pieces.push({ header: headers[1], payload: hex(""), last: true });
        }
        let pushed = 0;
        for (const { header, payload, last } of pieces) {
          extension.push({ header, payload, last });
          pushed += payload.length;
          let finished = false;
          for (;;) {
            const piece = extension.next(() => {});
            if (piece === undefined) break;
            if (piece === PENDING) {
              assert.equal(extension.next(() => {}), PENDING, "until the work is done");
              engine.work.shift()!();
              continue;
            }
            assert.deepEqual(piece.header, { ...header, rsv: 0, length: 0 });
            assert.equal(finished, false);
            finished = piece.last;
            assert.ok(finished || piece.payload.length > 0);
            outputs.push(piece.payload);
          }
          assert.equal(finished, last);
          const given = outputs.reduce((sum, { length }) => sum + length, 0);
          if (kept === undefined) assert.equal(given, pushed, "all output of the piece");
        }
        assertSameBytes(concat(outputs), concat(sizes.map(pattern)));
        assert.deepEqual(engine.later, later);
        assert.equal(engine.open, 0, "closed after the message");
        // A continuation without a message passes as it is.
        const header = { fin: true, rsv: 0, opcode: Opcode.Continuation, masked: false, length: 1 };
        const piece = { header, payload: pattern(1), last: true };
        extension.push(piece);
        assert.deepEqual(extension.next(), piece);
        assert.equal(engine.open, 0);
      });
    }
  }

  it("nothing is given after an error or after close()", () => {
    for (const fails of [new Error("wrong"), new RangeError("too long"), undefined]) {
      const { engine, extension } = slow();
      const header = { fin: true, rsv: 4, opcode: Opcode.Binary, masked: false, length: 200_000 };
      const piece = { header, payload: pattern(200_000), last: true };
      extension.push(piece);
      assert.equal(extension.next(() => {}), PENDING);
      engine.fails = fails;
      engine.work.shift()!();
      if (fails === undefined) extension.close();
      else {
        const closeCode = fails instanceof RangeError ? 1009 : 1007;
        const message = new RegExp(`${fails.message}$`);
        assert.throws(() => extension.next(() => {}), { closeCode, message });
      }
      assert.equal(engine.open, 0);
      assert.equal(extension.next(() => {}), undefined);
      extension.push(piece);
      assert.equal(engine.open, 0);
      assert.equal(extension.next(() => {}), undefined);
      extension.close();
      assert.equal(engine.open, 0);
    }
  });

  it("frames that are not compressed pass as they are, with their length", () => {
    const { engine, extension } = slow();
    assert.equal(extension.name, "permessage-deflate");
    const header = (opcode: Opcode, fin: boolean, rsv: number) => ({
      fin,
      rsv,
      opcode,
      masked: false,
      length: 3,
    });
    const headers = [
      header(Opcode.Binary, false, 2),
      header(Opcode.Continuation, true, 0),
      header(Opcode.Text, true, 0),
      // Out of order: the message reader refuses them.
      header(Opcode.Continuation, true, 0),
      header(Opcode.Text, false, 0),
      header(Opcode.Text, true, 4),
    ];
    for (const header of headers) {
      const payload = pattern(3);
      extension.push({ header, payload, last: true });
      assert.deepEqual(extension.next(), {
        header: { ...header, rsv: header.rsv & 3 },
        payload,
        last: true,
      });
      assert.equal(extension.next(), undefined);
    }
    assert.equal(engine.open, 0);
    const wrong = header(Opcode.Continuation, true, 4);
    assert.throws(() => extension.push({ header: wrong, payload: pattern(3), last: true }), {
      closeCode: 1002,
    });
  });
});

describe("permessage-deflate: its options", () => {
  const wrong: readonly [options: object, error: typeof TypeError | typeof RangeError][] = [
    [{ serverMaxWindowBits: 7 }, RangeError],
    [{ serverMaxWindowBits: 16 }, RangeError],
    [{ clientMaxWindowBits: 7 }, RangeError],
    [{ clientMaxWindowBits: 16 }, RangeError],
    [{ clientMaxWindowBits: 9.5 }, RangeError],
    [{ clientMaxWindowBits: true }, TypeError],
    [{ serverMaxWindowBits: "10" }, TypeError],
    [{ serverMaxWindowBits: NaN }, RangeError],
    [{ clientNoContextTakeover: 1 }, TypeError],
    [{ serverNoContextTakeover: "yes" }, TypeError],
    [{ level: 10 }, RangeError],
    [{ level: -2 }, RangeError],
    [{ memLevel: 0 }, RangeError],
    [{ memLevel: 10 }, RangeError],
    [{ threshold: -1 }, RangeError],
    [{ threshold: "1" }, TypeError],
    [{ memory: "tiny" }, RangeError],
    [{ memory: "toString" }, RangeError],
  ];
  for (const [options, error] of wrong) {
    it(`W52 ${JSON.stringify(options)} is a ${error.name}`, async () => {
      assert.throws(() => factory(options), error);
      const compression = options as PerMessageDeflateOptions;
      await assert.rejects(connect("ws://127.0.0.1:1", { compression }), error);
      await assert.rejects(serve({ compression }, () => {}), error);
    });
  }

  for (const compression of ["yes", 1, null] as unknown as boolean[]) {
    it(`compression: ${compression} is a TypeError`, async () => {
      await assert.rejects(connect("ws://127.0.0.1:1", { compression }), TypeError);
    });
  }

  const right: readonly PerMessageDeflateOptions[] = [
    { serverMaxWindowBits: 8, clientMaxWindowBits: 8, level: -1, memLevel: 1, threshold: 0 },
    { serverMaxWindowBits: 15, clientMaxWindowBits: 15, level: 9, memLevel: 9 },
    { level: 0, threshold: Infinity, memory: "low" },
    { level: undefined, memLevel: undefined, threshold: undefined, memory: undefined },
  ];
  for (const options of right) {
    it(`W52 ${JSON.stringify(options)} is allowed`, () => void factory(options));
  }

  const settings: readonly [options: PerMessageDeflateOptions, expected: DeflaterOptions][] = [
    [{}, { windowBits: 12, level: -1, memLevel: 5 }],
    [{ memory: "balanced" }, { windowBits: 12, level: -1, memLevel: 5 }],
    [{ memory: "low" }, { windowBits: 12, level: -1, memLevel: 5 }],
    [{ memory: "high" }, { windowBits: 15, level: -1, memLevel: 8 }],
    [{ memory: "low", level: 3, memLevel: 9, clientMaxWindowBits: 10, serverMaxWindowBits: 10 }, {
      windowBits: 10,
      level: 3,
      memLevel: 9,
    }],
  ];
  for (const [options, expected] of settings) {
    it(`the engine gets what ${JSON.stringify(options)} says`, () => {
      const { engine, made } = copyingEngine();
      const extension = new PerMessageDeflate({ engine, ...options });
      const client = extension.finalize(parameters("server_max_window_bits=9"));
      const server = extension.accept(parameters("client_max_window_bits"))!;
      const payload = new Uint8Array(2000);
      for (const end of [client, server.extension]) {
        end.encode({ opcode: Opcode.Binary, fin: true, rsv: 0, payload });
      }
      assert.deepEqual(made, [expected, expected]);
    });
  }

  /** How many compressors two messages need. */
  const kept: readonly [
    options: PerMessageDeflateOptions,
    role: Role,
    agreed: string,
    deflaters: number,
  ][] = [
    [{}, "client", "", 1],
    [{}, "server", "", 1],
    [{}, "client", "client_no_context_takeover", 2],
    [{}, "server", "client_no_context_takeover", 1],
    [{}, "client", "server_no_context_takeover", 1],
    [{}, "server", "server_no_context_takeover", 2],
    [{ clientNoContextTakeover: true }, "client", "", 2],
    [{ clientNoContextTakeover: true }, "server", "", 1],
    [{ serverNoContextTakeover: true }, "client", "server_no_context_takeover", 1],
    [{ serverNoContextTakeover: true }, "server", "", 2],
  ];
  for (const [options, role, agreed, deflaters] of kept) {
    it(`a ${role} with ${JSON.stringify(options)} and "${agreed}" has ${deflaters} compressors`, () => {
      const { engine, made, count } = copyingEngine();
      const factory = new PerMessageDeflate({ engine, ...options });
      const extension = role === "client"
        ? factory.finalize(parameters(agreed))
        : factory.accept(parameters(agreed))!.extension;
      const payload = new Uint8Array(2000);
      for (const fin of [false, true]) {
        const opcode = fin ? Opcode.Continuation : Opcode.Binary;
        extension.encode({ opcode, fin, rsv: 0, payload });
      }
      extension.encode({ opcode: Opcode.Binary, fin: true, rsv: 0, payload });
      assert.equal(made.length, deflaters);
      extension.close();
      extension.close();
      assert.deepEqual(count, { deflaters: 0, inflaters: 0 });
    });
  }

  it("W53 it is registered by its name", () => {
    const made = new supportedExtensions["permessage-deflate"]({ engine: deflateEngine });
    assert.equal(made.name, "permessage-deflate");
  });
});

/** The offers of a client with these options. */
const OFFERS: readonly [options: PerMessageDeflateOptions, offers: string[]][] = [
  [{}, ["client_max_window_bits"]],
  [{ memory: "balanced" }, [
    "server_max_window_bits=12; client_max_window_bits",
    "client_max_window_bits",
  ]],
  [{ memory: "low" }, [
    "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12; " +
    "client_max_window_bits",
    "client_no_context_takeover; client_max_window_bits",
  ]],
  [{ clientMaxWindowBits: 15 }, ["client_max_window_bits"]],
  [{ clientMaxWindowBits: 10 }, ["client_max_window_bits=10"]],
  [{ clientNoContextTakeover: true }, ["client_no_context_takeover; client_max_window_bits"]],
  [{ serverNoContextTakeover: true }, ["server_no_context_takeover; client_max_window_bits"]],
  [{ serverMaxWindowBits: 9 }, ["server_max_window_bits=9; client_max_window_bits"]],
  [{ serverMaxWindowBits: 15 }, ["client_max_window_bits"]],
  [{ memory: "balanced", serverMaxWindowBits: 10 }, [
    "server_max_window_bits=10; client_max_window_bits",
  ]],
  [{ memory: "low", serverMaxWindowBits: 15, serverNoContextTakeover: false }, [
    "client_no_context_takeover; client_max_window_bits",
  ]],
  [{ memory: "low", serverNoContextTakeover: true }, [
    "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12; " +
    "client_max_window_bits",
    "server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
  ]],
];

describe("permessage-deflate: what a client offers", () => {
  for (const [options, offers] of OFFERS) {
    it(`W52 ${JSON.stringify(options)}`, () => {
      assert.deepEqual(factory(options).offer().map(written), offers);
    });
  }
});

/** The answer of a server with these options to an offer; undefined if it declines the offer. */
const ANSWERS: readonly [
  options: PerMessageDeflateOptions,
  offer: string,
  answer: string | undefined,
][] = [
  [{}, "", ""],
  [{}, "client_max_window_bits", ""],
  [{}, "client_max_window_bits=15", ""],
  [{}, "client_max_window_bits=10", "client_max_window_bits=10"],
  [{}, "client_max_window_bits=8", "client_max_window_bits=8"],
  [{}, "server_max_window_bits=15", "server_max_window_bits=15"],
  [{}, "server_max_window_bits=10", "server_max_window_bits=10"],
  [{}, "server_max_window_bits=8", "server_max_window_bits=8"],
  [{}, "server_no_context_takeover", "server_no_context_takeover"],
  [{}, "client_no_context_takeover", "client_no_context_takeover"],
  [
    {},
    "client_max_window_bits=9; server_max_window_bits=9; client_no_context_takeover; " +
    "server_no_context_takeover",
    "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; " +
    "client_max_window_bits=9",
  ],
  [{ serverNoContextTakeover: true }, "", "server_no_context_takeover"],
  [{ clientNoContextTakeover: true }, "", "client_no_context_takeover"],
  [{ serverMaxWindowBits: 10 }, "", "server_max_window_bits=10"],
  [{ serverMaxWindowBits: 10 }, "server_max_window_bits=12", "server_max_window_bits=10"],
  [{ serverMaxWindowBits: 10 }, "server_max_window_bits=9", "server_max_window_bits=9"],
  [{ clientMaxWindowBits: 10 }, "client_max_window_bits", "client_max_window_bits=10"],
  [{ clientMaxWindowBits: 10 }, "client_max_window_bits=12", "client_max_window_bits=10"],
  [{ clientMaxWindowBits: 10 }, "client_max_window_bits=9", "client_max_window_bits=9"],
  // A requirement that the server cannot send, because the client has not offered the parameter.
  [{ clientMaxWindowBits: 10 }, "", undefined],
  [{ clientMaxWindowBits: 15 }, "", ""],
  // Preferences.
  [{ memory: "balanced" }, "", "server_max_window_bits=12"],
  [
    { memory: "balanced" },
    "client_max_window_bits",
    "server_max_window_bits=12; client_max_window_bits=12",
  ],
  [
    { memory: "low" },
    "",
    "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
  ],
];

/** Offers that are invalid for any options of the server. */
const INVALID: readonly [offer: string, code: string][] = [
  ["unknown", "parameter-name"],
  ["server_max_window_bits=10; unknown=1", "parameter-name"],
  ["Server_no_context_takeover", "parameter-name"],
  ["__proto__", "parameter-name"],
  ["server_no_context_takeover=true", "parameter-value"],
  ["client_no_context_takeover=1", "parameter-value"],
  ["server_no_context_takeover; server_no_context_takeover", "duplicate-parameter"],
  ["client_no_context_takeover; client_no_context_takeover", "duplicate-parameter"],
  ["server_max_window_bits=10; server_max_window_bits=10", "duplicate-parameter"],
  ["client_max_window_bits=10; client_max_window_bits=9", "duplicate-parameter"],
  ...["7", "16", "0", "08", "010", "+9", "1e1", "9.0", "a", "115", "-9"].flatMap((value) =>
    [
      [`server_max_window_bits=${value}`, "parameter-value"],
      [`client_max_window_bits=${value}`, "parameter-value"],
    ] as [string, string][]
  ),
  ["server_max_window_bits", "parameter-value"],
];

describe("permessage-deflate: what a server answers", () => {
  for (const [options, offer, answer] of ANSWERS) {
    it(`W20 W52 ${JSON.stringify(options)} to "${offer}"`, () => {
      const accepted = factory(options).accept(parameters(offer));
      assert.equal(accepted && written(accepted.parameters), answer);
      accepted?.extension.close();
    });
  }

  for (const [offer] of INVALID) {
    it(`W52 declines "${offer}"`, () => {
      assert.equal(factory().accept(parameters(offer)), undefined);
    });
  }
});

/** Answers that a client with these options accepts. */
const TAKEN: readonly [options: PerMessageDeflateOptions, answer: string][] = [
  [{}, ""],
  [{}, "server_no_context_takeover"],
  [{}, "client_no_context_takeover"],
  [{}, "server_max_window_bits=8"],
  [{}, "server_max_window_bits=15"],
  [{}, "client_max_window_bits=8"],
  [
    {},
    "client_max_window_bits=15; server_max_window_bits=15; client_no_context_takeover; " +
    "server_no_context_takeover",
  ],
  [{ clientMaxWindowBits: 10 }, ""],
  [{ clientMaxWindowBits: 10 }, "client_max_window_bits=10"],
  [{ clientMaxWindowBits: 10 }, "client_max_window_bits=9"],
  [{ serverMaxWindowBits: 10 }, "server_max_window_bits=10"],
  [{ serverMaxWindowBits: 10 }, "server_max_window_bits=8"],
  [{ serverNoContextTakeover: true }, "server_no_context_takeover"],
  [{ memory: "low" }, ""],
  [{ memory: "balanced" }, "server_max_window_bits=15"],
  [{ memory: "balanced" }, "client_max_window_bits=15"],
];

/** Answers that the client refuses, in addition to invalid ones. */
const REFUSED: readonly [options: PerMessageDeflateOptions, answer: string, code: string][] = [
  ...INVALID.map(([answer, code]) => [{}, answer, code] as [object, string, string]),
  [{}, "client_max_window_bits", "parameter-value"],
  [{ clientMaxWindowBits: 10 }, "client_max_window_bits=11", "parameter-value"],
  [{ serverMaxWindowBits: 10 }, "server_max_window_bits=11", "parameter-value"],
  [{ serverMaxWindowBits: 10 }, "", "parameter-name"],
  [{ serverNoContextTakeover: true }, "", "parameter-name"],
];

describe("permessage-deflate: what a client makes of an answer", () => {
  for (const [options, answer] of TAKEN) {
    it(`W19 W52 ${JSON.stringify(options)} takes "${answer}"`, () => {
      factory(options).finalize(parameters(answer)).close();
    });
  }

  for (const [options, answer, code] of REFUSED) {
    it(`W19 W52 ${JSON.stringify(options)} refuses "${answer}": ${code}`, () => {
      assert.throws(
        () => factory(options).finalize(parameters(answer)),
        (error: HandshakeError) => error.name === "HandshakeError" && error.code === code,
      );
    });
  }
});

// On the wire

interface Agreed {
  client: Extension;
  server: Extension;
}

function agree(options: PerMessageDeflateOptions = {}): Agreed {
  const made = factory({ threshold: 0, ...options });
  const accepted = made.accept(made.offer()[0])!;
  return { client: made.finalize(accepted.parameters), server: accepted.extension };
}

const finished = { frameFinished: true, messageFinished: true };
const text = (data: string, rest: object = {}): ProtocolEvent => ({
  type: "text",
  data,
  ...finished,
  ...rest,
});

/** The events of a server that has agreed on compression and receives these frames, or the error. */
function receive(frames: readonly Frame[], options: PerMessageDeflateOptions = {}) {
  const { server } = agree(options);
  const protocol = new Protocol("server", { extensions: [server], maxMessageSize: 1000 });
  const events: ProtocolEvent[] = [];
  try {
    for (const frame of frames) {
      protocol.receive(encodeFrame(frame, { mask: true }));
      events.push(...protocol.events());
    }
    return { events };
  } catch (error) {
    if (!(error instanceof RemoteProtocolError)) throw error;
    return { events, code: error.closeCode };
  } finally {
    protocol.dispose();
  }
}

const RSV1 = 4;
const HELLO = hex("f2 48 cd c9 c9 07 00");
const first = (payload: Uint8Array, rest: Partial<Frame> = {}): Frame => ({
  opcode: Opcode.Text,
  rsv: RSV1,
  payload,
  ...rest,
});
const more = (payload: Uint8Array, rest: Partial<Frame> = {}): Frame => ({
  opcode: Opcode.Continuation,
  payload,
  ...rest,
});
const nothing = new Uint8Array(0);

/** The texts of the messages and pings in the frames, or a close code. */
const RECEIVED: readonly [title: string, frames: Frame[], texts: string[], code?: number][] = [
  ["a message", [first(HELLO)], ["Hello"]],
  ["one that refers to the one before", [first(HELLO), first(hex("f2 00 11 00 00"))], [
    "Hello",
    "Hello",
  ]],
  ["one that is not compressed", [first(utf8("plain"), { rsv: 0 }), first(HELLO)], [
    "plain",
    "Hello",
  ]],
  ["one behind a compressed one that is not", [
    first(HELLO),
    first(utf8("plain"), { rsv: 0 }),
    first(hex("f2 00 11 00 00")),
  ], ["Hello", "plain", "Hello"]],
  ["an empty one", [first(hex("00"))], [""]],
  ["empty ones that have no byte at all", [first(HELLO), first(nothing), first(HELLO)], [
    "Hello",
    "",
    "Hello",
  ]],
  ["fragments (§7.2.3.1)", [
    first(hex("f2 48 cd"), { fin: false }),
    more(hex("c9 c9 07 00")),
  ], ["Hello"]],
  ["empty fragments", [
    first(nothing, { fin: false }),
    more(hex("f2 48 cd"), { fin: false }),
    more(nothing, { fin: false }),
    more(hex("c9 c9 07 00"), { fin: false }),
    more(nothing),
  ], ["Hello"]],
  ["a ping between fragments", [
    first(hex("f2 48 cd"), { fin: false }),
    { opcode: Opcode.Ping, payload: utf8("between") },
    more(hex("c9 c9 07 00")),
  ], ["between", "Hello"]],
  ["fragments that are not compressed", [
    first(utf8("He"), { fin: false, rsv: 0 }),
    more(utf8("llo")),
  ], ["Hello"]],
  [
    "RSV1 on a continuation of a compressed message",
    [
      first(hex("f2 48 cd"), { fin: false }),
      more(hex("c9 c9 07 00"), { rsv: RSV1 }),
    ],
    [],
    1002,
  ],
  [
    "RSV1 on a continuation of one that is not",
    [
      first(utf8("He"), { fin: false, rsv: 0 }),
      more(utf8("llo"), { rsv: RSV1 }),
    ],
    [],
    1002,
  ],
  ["RSV1 on a ping", [{ opcode: Opcode.Ping, rsv: RSV1, payload: nothing }], [], 1002],
  ["RSV1 on a Close", [{ opcode: Opcode.Close, rsv: RSV1, payload: hex("03 e8") }], [], 1002],
  ["RSV2", [first(HELLO, { rsv: 2 })], [], 1002],
  ["RSV1 and RSV3", [first(HELLO, { rsv: 5 })], [], 1002],
  ["a continuation of nothing", [more(HELLO)], [], 1002],
  ["a message within another", [first(hex("f2 48 cd"), { fin: false }), first(HELLO)], [], 1002],
  ["data that is invalid", [first(HELLO), first(hex("ff ff ff"))], ["Hello"], 1007],
  ["a stream cut short", [first(hex("00 64 00 9b ff 48 65"))], [], 1007],
  ["compressed text that is not UTF-8", [first(hex("00 01 00 fe ff ff 00"))], [], 1007],
  ["a reference beyond what came", [first(hex("f2 00 11 00 00"))], [], 1007],
];

describe("permessage-deflate: received messages", () => {
  for (const [title, frames, texts, code] of RECEIVED) {
    it(title, () => {
      const received = receive(frames);
      const got: string[] = [];
      let message = "";
      for (const event of received.events) {
        if (event.type === "ping") got.push(new TextDecoder().decode(event.payload));
        if (event.type !== "text") continue;
        message += event.data;
        if (!event.messageFinished) continue;
        got.push(message);
        message = "";
      }
      assert.deepEqual([got, received.code], [texts, code]);
    });
  }

  it("without context takeover a message cannot refer to the one before", () => {
    const { events, code } = receive([first(HELLO), first(hex("f2 00 11 00 00"))], {
      clientNoContextTakeover: true,
    });
    assert.deepEqual([events.length, code], [1, 1007]);
  });

  it("maxMessageSize counts the bytes after decompression", () => {
    const { client } = agree();
    const frame = client.encode({
      opcode: Opcode.Binary,
      fin: true,
      rsv: 0,
      payload: new Uint8Array(1001),
    })!;
    assert.ok(frame.payload.length < 100);
    assert.equal(receive([frame]).code, 1009);
    assert.equal(receive([{ ...frame, fin: false }]).code, 1009);
  });
});

describe("permessage-deflate: sent messages", () => {
  const LONG = "to be or not to be; ".repeat(100);

  /** The frames that a role sends for the events, and the events that the peer receives. */
  function send(
    events: ProtocolEvent[],
    options: PerMessageDeflateOptions = {},
    role: Role = "client",
  ) {
    const agreed = agree(options);
    const frames: Frame[] = [];
    const peerRole = role === "client" ? "server" : "client";
    const end = new Protocol(role, {
      extensions: [agreed[role]],
      onFrame: (_, frame) => void frames.push({ ...frame, payload: frame.payload.slice() }),
    });
    const peer = new Protocol(peerRole, { extensions: [agreed[peerRole]] });
    const received: ProtocolEvent[] = [];
    for (const event of events) {
      peer.receive(end.send(event));
      received.push(...peer.events());
    }
    end.dispose();
    peer.dispose();
    return { frames, received };
  }

  for (const role of ["client", "server"] as const) {
    it(`a ${role} keeps the context, and refers to it`, () => {
      const { frames, received } = send([text(LONG), text(LONG)], {}, role);
      assert.deepEqual(received, [text(LONG), text(LONG)]);
      assert.ok(frames[1].payload.length < frames[0].payload.length);
      assert.deepEqual(frames.map(({ rsv }) => rsv), [RSV1, RSV1]);
    });

    it(`a ${role} that must not does not`, () => {
      const options = { clientNoContextTakeover: true, serverNoContextTakeover: true };
      const { frames, received } = send([text(LONG), text(LONG)], options, role);
      assert.deepEqual(received, [text(LONG), text(LONG)]);
      assert.deepEqual(frames[0].payload, frames[1].payload);
    });
  }

  it("no tail of four bytes: the peer adds it", () => {
    const { frames } = send([text(LONG)]);
    assert.notDeepEqual(frames[0].payload.slice(-4), hex("00 00 ff ff"));
  });

  it("§7.2.3.6 an empty message is one byte", () => {
    const { frames, received } = send([text(""), text(""), text(LONG), text("")]);
    assert.deepEqual(received, [text(""), text(""), text(LONG), text("")]);
    assert.deepEqual(frames.map(({ payload }) => payload.length === 1), [true, true, false, true]);
  });

  it("fragments: the bit stands on the first, and each comes out as it is sent", () => {
    const part = { messageFinished: false };
    const events = [text("one ", part), text("", part), text("two", part), text("")];
    const { frames, received } = send(events);
    assert.deepEqual(frames.map(({ rsv }) => rsv), [RSV1, 0, 0, 0]);
    assert.deepEqual(received, events);
  });

  it("a threshold leaves shorter messages uncompressed, except fragments", () => {
    const part = { messageFinished: false };
    const events = [
      text("x".repeat(9)),
      text("x".repeat(10)),
      text("é".repeat(5)),
      text("a", part),
    ];
    const { frames } = send([...events, text("b")], { threshold: 10 });
    assert.deepEqual(frames.map(({ rsv }) => rsv), [0, RSV1, RSV1, RSV1, 0]);
  });

  it("the default threshold is 1024 bytes", () => {
    const events = [text("x".repeat(1023)), text("x".repeat(1024))];
    const { frames } = send(events, { threshold: undefined });
    assert.deepEqual(frames.map(({ rsv }) => rsv), [0, RSV1]);
  });

  it("a sender's wish goes before the threshold", () => {
    const events = [text("x", { compress: true }), text(LONG, { compress: false })];
    const { frames } = send(events, { threshold: 10 });
    assert.deepEqual(frames.map(({ rsv }) => rsv), [RSV1, 0]);
    assert.deepEqual(frames[1].payload, utf8(LONG));
  });

  it("any window agreed on holds, both ways", () => {
    for (let windowBits = 8; windowBits <= 15; windowBits++) {
      const options = { clientMaxWindowBits: windowBits, serverMaxWindowBits: windowBits };
      const data = concat(
        Array.from({ length: 300 }, (_, i) => utf8(`${i * 7919 % 1000} `.repeat(9))),
      );
      const event: ProtocolEvent = { type: "binary", data, ...finished };
      for (const role of ["client", "server"] as const) {
        assert.deepEqual(send([event, event], options, role).received, [event, event]);
      }
    }
  });

  it("what the caller gave is left as it was", () => {
    const data = utf8(LONG);
    send([{ type: "binary", data, ...finished }]);
    assert.deepEqual(data, utf8(LONG));
  });
});

// On a connection

/** An extension that replaces each message by bytes that cannot be inflated. */
function sending(length: number): ExtensionFactory {
  const payload = new Uint8Array(length).fill(0xff);
  const extension: Extension = {
    name: "permessage-deflate",
    rsv: RSV1,
    push: () => {},
    next: () => undefined,
    encode: (frame) => ({ ...frame, rsv: RSV1, payload }),
    close: () => {},
  };
  const { name } = extension;
  return { name, offer: () => [[]], finalize: () => extension, accept: () => undefined };
}

async function echoEach(ws: WebSocketConnection): Promise<void> {
  for await (const message of ws) await ws.send(message);
}

const JSON_TEXT = JSON.stringify(
  Array.from({ length: 9000 }, (_, i) => ({ id: i, even: i % 2 === 0 })),
);

describe("permessage-deflate: on a connection", () => {
  const agreements: readonly [
    title: string,
    client: boolean | PerMessageDeflateOptions | undefined,
    server: boolean | PerMessageDeflateOptions | undefined,
    extensions: string,
  ][] = [
    ["not by default: the server does not accept it", undefined, undefined, ""],
    ["not where the client does not offer it", false, true, ""],
    [
      "where the server does",
      undefined,
      true,
      "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
    ],
    ["as both say", { memory: "high" }, { memory: "high" }, "permessage-deflate"],
    [
      "as the stricter of both says",
      { memory: "high", serverNoContextTakeover: true, clientMaxWindowBits: 11 },
      { memory: "high", clientMaxWindowBits: 10, serverMaxWindowBits: 14 },
      "permessage-deflate; server_no_context_takeover; server_max_window_bits=14; " +
      "client_max_window_bits=10",
    ],
  ];
  for (const [title, client, server, extensions] of agreements) {
    it(`K16 messages are compressed ${title}`, async () => {
      await withServer({ compression: server }, async (listening) => {
        const ws = await connect(urlOf(listening), { compression: client });
        assert.equal(ws.extensions, extensions);
        for (const message of ["", "short", JSON_TEXT, JSON_TEXT, utf8(JSON_TEXT)]) {
          ws.send(message);
          assert.deepEqual(await ws.receive(), message);
        }
        const compressed = ws.stats.bytesSent < JSON_TEXT.length;
        assert.equal(compressed, extensions !== "");
        await ws.close({ closeCode: 1000 });
      }, echoEach);
    });
  }

  it("an extension that the caller has set up goes before the option", async () => {
    const extensions = [factory({ clientMaxWindowBits: 9 })];
    await withServer({ compression: true }, async (listening) => {
      const ws = await connect(urlOf(listening), { extensions });
      assert.match(ws.extensions, /client_max_window_bits=9/);
      await ws.close();
    }, echoEach);
  });

  it("many at once, of all lengths, keep their order", async () => {
    const [client, server] = await pair({ server: { compression: true } });
    const messages = Array.from({ length: 60 }, (_, i) => JSON_TEXT.slice(0, (i * 9973) % 200_000));
    const received = collect(server);
    const sent = messages.map((message) => client.send(message));
    await Promise.all(sent);
    await client.close({ closeCode: 1000 });
    const got = await received;
    assert.deepEqual(got.map(({ length }) => length), messages.map(({ length }) => length));
    assert.ok(got.every((message, i) => message === messages[i]));
  });

  it("each send may say whether it is compressed", async () => {
    const rsvs: (number | undefined)[] = [];
    const [client, server] = await pair({
      client: {
        onFrame: (direction, { rsv }) => void (direction === "out" && rsvs.push(rsv)),
      },
      server: { compression: true },
    });
    // The sends are not awaited in turn: a long message is only sent as fast as its receiver reads.
    const sends = [
      client.send("short", { compress: true }),
      client.send(JSON_TEXT, { compress: false }),
      client.send(["a", "b"], { compress: false }),
    ];
    assert.equal(await server.receive(), "short");
    assert.equal(await server.receive(), JSON_TEXT);
    assert.equal(await server.receive(), "ab");
    await Promise.all(sends);
    assert.deepEqual(rsvs.slice(0, 2), [RSV1, 0]);
    assert.ok(rsvs.slice(2).every((rsv) => rsv === 0));
    client.terminate();
  });

  it("terminate() while compression is under way ends both ends, and nothing more comes", async () => {
    for (let i = 0; i < 10; i++) {
      const [client, server] = await pair({
        client: { maxMessageSize: Infinity },
        server: { compression: true, maxMessageSize: Infinity },
      });
      const long = JSON_TEXT.repeat(4);
      const sends = [client.send(long), server.send(long), client.send(long)];
      for (const send of sends) send.catch(() => {});
      client.discard();
      const received = collect(server);
      received.catch(() => {});
      for (let turns = 0; turns < i; turns++) {
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
      if (i % 2 === 0) client.terminate();
      else server.terminate();
      await Promise.allSettled([client.closed, server.closed, received, ...sends]);
    }
  });

  it("a message that cannot be inflated fails only its own connection, with 1007", async () => {
    const errors: unknown[] = [];
    const options = { compression: true, onError: (error: unknown) => errors.push(error) };
    await withServer(options, async (listening) => {
      const good = await connect(urlOf(listening));
      for (const length of [100, 5_000_000]) {
        const bad = await connect(urlOf(listening), { extensions: [sending(length)] });
        bad.send("x");
        // The close is not clean if the rest of the message was still waiting to be sent.
        const told = bad.closed.catch((error: WebSocketError) => error);
        assert.equal((await told).closeCode, 1007);
      }
      await good.send(JSON_TEXT);
      assert.equal(await good.receive(), JSON_TEXT);
      await good.close({ closeCode: 1000 });
      await until(() => listening.connections.size === 0);
    }, (ws) => echoEach(ws).catch(() => {}));
    assert.deepEqual(errors, []);
  });
});
