import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  parseRequestHead,
  parseResponseHead,
  type RawHeaders,
  type RequestHead,
  type ResponseHead,
  serializeRequestHead,
  serializeResponseHead,
} from "../lib/core/mod.ts";
import type { HeadLimits } from "../lib/core/http1.ts";
import { bodyFraming } from "../lib/core/body.ts";
import { HeadReader, requestOf, requestText, responseOf, responseText } from "../lib/core/http1.ts";
import { concat, cut, cuts, hex, latin1, single } from "./bytes.ts";
import { fc, offsets } from "./property.ts";

const HEAD = "GET /chat?a=1 HTTP/1.1\r\nHost: example.com\r\nX-Two:  b c \t\r\nx-two:\r\n\r\n";
const REQUEST: RequestHead = {
  method: "GET",
  target: "/chat?a=1",
  version: "1.1",
  headers: [["Host", "example.com"], ["X-Two", "b c"], ["x-two", ""]],
};

/** A request with this text after its request line. */
function withField(field: string): string {
  return `GET / HTTP/1.1\r\n${field}\r\n\r\n`;
}

function malformed(message: string, at: number): object {
  return {
    name: "HandshakeError",
    code: "malformed-head",
    status: 400,
    message: `${message} (byte ${at} of the head)`,
  };
}

describe("parseRequestHead", () => {
  it("parseRequestHead reads the request line and the fields, in order, repeated ones too", () => {
    assert.deepEqual(parseRequestHead(latin1(HEAD)), { head: REQUEST, length: HEAD.length });
  });

  it("parseRequestHead does not touch what follows the head, whatever it is", () => {
    const bytes = concat([latin1(HEAD), hex("81 85 00 0a 0d 0a ff")]);
    assert.equal(parseRequestHead(bytes)?.length, HEAD.length);
  });

  it("parseRequestHead waits while the head is not whole", () => {
    for (let length = 0; length < HEAD.length; length++) {
      assert.equal(parseRequestHead(latin1(HEAD.slice(0, length))), undefined, `${length} bytes`);
    }
  });

  it("parseRequestHead reads HTTP/1.0, and values in Latin-1", () => {
    const parsed = parseRequestHead(latin1("GET * HTTP/1.0\r\nX: \xe9\x80\xff\r\n\r\n"));
    assert.deepEqual(parsed?.head, {
      method: "GET",
      target: "*",
      version: "1.0",
      headers: [["X", "\xe9\x80\xff"]],
    });
  });

  const LINE = "The head does not begin with a request line of method, target and version";
  const FIELD = "A line is not a header field of name, colon and value";
  const CONTROL = "The head has a control character";
  const invalid: readonly [title: string, head: string, message: string, at: number][] = [
    ["an empty request line", "\r\n\r\n", LINE, 0],
    ["a request line without version", "GET /\r\n\r\n", LINE, 0],
    ["a request line with two blanks", "GET  / HTTP/1.1\r\n\r\n", LINE, 0],
    ["a request line with a blank at its end", "GET / HTTP/1.1 \r\n\r\n", LINE, 0],
    ["a request line with a tab", "GET\t/ HTTP/1.1\r\n\r\n", LINE, 0],
    ["a request line with a blank at its start", " GET / HTTP/1.1\r\n\r\n", LINE, 0],
    ["a method that is no token", "G(T / HTTP/1.1\r\n\r\n", LINE, 0],
    ["a target beyond ASCII", "GET /\xe9 HTTP/1.1\r\n\r\n", LINE, 0],
    ["another protocol", "GET / HTTQ/1.1\r\n\r\n", LINE, 0],
    ["a version in lower case", "GET / http/1.1\r\n\r\n", LINE, 0],
    ["a version of two digits", "GET / HTTP/1.11\r\n\r\n", LINE, 0],
    ["an empty line before the request", "\r\nGET / HTTP/1.1\r\n\r\n", LINE, 0],
    ["a bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", "A line ends with LF instead of CR LF", 14],
    [
      "a bare LF in a field",
      withField("Host: a\nb: c"),
      "A line ends with LF instead of CR LF",
      23,
    ],
    ["a bare CR", "GET / HTTP/1.1\rHost: a\r\n\r\n", "A CR is not followed by LF", 15],
    ["a bare CR in a field", withField("Host: a\rb: c"), "A CR is not followed by LF", 24],
    ["two CRs", "GET / HTTP/1.1\r\r\n\r\n", "A CR is not followed by LF", 15],
    ["a folded field with a blank", withField("A: b\r\n c"), FIELD, 22],
    ["a folded field with a tab", withField("A: b\r\n\tc: d"), FIELD, 22],
    ["a first field that is folded", withField(" A: b"), FIELD, 16],
    ["a blank before the colon", withField("Host : a"), FIELD, 16],
    ["a tab before the colon", withField("Host\t: a"), FIELD, 16],
    ["a field without colon", withField("Host a"), FIELD, 16],
    ["a field without name", withField(": a"), FIELD, 16],
    ["a name that is no token", withField("Ho(st: a"), FIELD, 16],
    ["a name beyond ASCII", withField("H\xf6st: a"), FIELD, 16],
    ["a NUL in a value", withField("A: b\0c"), CONTROL, 20],
    ["a control character in a name", withField("A\x01: b"), CONTROL, 17],
    ["an escape in a value", withField("A: \x1b[0m"), CONTROL, 19],
    ["a DEL in a value", withField("A: b\x7f"), CONTROL, 20],
  ];
  for (const [title, head, message, at] of invalid) {
    it(`parseRequestHead refuses ${title}`, () => {
      assert.throws(() => parseRequestHead(latin1(head)), malformed(message, at));
    });
  }

  for (
    const [line, received] of [["GET / HTTP/2.0", "2.0"], ["PRI * HTTP/2.0", "2.0"], [
      "GET / HTTP/0.9",
      "0.9",
    ]]
  ) {
    it(`parseRequestHead refuses the version of ${line}`, () => {
      assert.throws(() => parseRequestHead(latin1(`${line}\r\n\r\n`)), {
        code: "http-version",
        status: 505,
        message: `The peer uses HTTP/${received} instead of HTTP/1.1`,
      });
    });
  }

  it("parseRequestHead refuses a TLS ClientHello at its first byte", () => {
    const expected = malformed(CONTROL, 0);
    assert.throws(() => parseRequestHead(hex("16")), expected);
    assert.throws(() => parseRequestHead(hex("16 03 01 02 00 01 00 01 fc 03 03")), expected);
  });
});

describe("parseResponseHead", () => {
  const start: readonly [line: string, version: string, status: number, statusText: string][] = [
    ["HTTP/1.1 101 Switching Protocols", "1.1", 101, "Switching Protocols"],
    ["HTTP/1.0 200 OK", "1.0", 200, "OK"],
    ["HTTP/1.1 404 ", "1.1", 404, ""],
    ["HTTP/1.1 404", "1.1", 404, ""],
    ["HTTP/1.1 999 \tG\xfct", "1.1", 999, "\tG\xfct"],
  ];
  for (const [line, version, status, statusText] of start) {
    it(`parseResponseHead reads ${JSON.stringify(line)}`, () => {
      const bytes = latin1(`${line}\r\nA: b\r\n\r\nrest`);
      assert.deepEqual(parseResponseHead(bytes), {
        head: { version, status, statusText, headers: [["A", "b"]] },
        length: bytes.length - 4,
      });
    });
  }

  const invalid = [
    "",
    "HTTP/1.1",
    "HTTP/1.1 ",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 099 Low",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 2x0 OK",
    "HTTP/1.1  200 OK",
    " HTTP/1.1 200 OK",
    "HTTP/11 200 OK",
    "ICY 200 OK",
  ];
  for (const line of invalid) {
    it(`parseResponseHead refuses ${JSON.stringify(line)}`, () => {
      assert.throws(
        () => parseResponseHead(latin1(`${line}\r\n\r\n`)),
        malformed(
          "The head does not begin with a status line of version, status and reason phrase",
          0,
        ),
      );
    });
  }

  it("parseResponseHead refuses a reason phrase with a DEL", () => {
    assert.throws(
      () => parseResponseHead(latin1("HTTP/1.1 200 O\x7fK\r\n\r\n")),
      malformed("The head has a control character", 14),
    );
  });

  it("parseResponseHead refuses HTTP/2.0", () => {
    const message = "The peer uses HTTP/2.0 instead of HTTP/1.1";
    assert.throws(() => parseResponseHead(latin1("HTTP/2.0 200\r\n\r\n")), {
      code: "http-version",
      message,
    });
  });
});

describe("Limits of heads", () => {
  const line = (length: number) => `GET /${"a".repeat(length - 14)} HTTP/1.1`;
  const field = (length: number) => `A: ${"b".repeat(length - 3)}`;
  /** A head of this many bytes in total, in lines of at most 1000 bytes. */
  const head = (length: number) => {
    const rest = length - 18;
    const fields = Array.from({ length: Math.floor(rest / 1002) }, () => field(1000) + "\r\n");
    return `GET / HTTP/1.1\r\n${fields.join("")}${field(rest % 1002 - 2)}\r\n\r\n`;
  };
  const fields = (count: number) => withField(Array(count).fill("A: b").join("\r\n"));
  const limits = { maxHeaderCount: 3, maxLineLength: 100, maxHeadSize: 150 };

  /** The largest input that passes, and the smallest one that does not. */
  const borders: readonly {
    title: string;
    limits?: HeadLimits;
    passes: string;
    fails: string;
    code?: string;
    message: string;
  }[] = [
    {
      title: "fields",
      passes: fields(128),
      fails: fields(129),
      message: "The number of header fields exceeds maxHeaderCount (128)",
    },
    {
      title: "fields, as set",
      limits,
      passes: fields(3),
      fails: fields(4),
      message: "The number of header fields exceeds maxHeaderCount (3)",
    },
    {
      title: "the length of the request line",
      passes: `${line(8192)}\r\n\r\n`,
      fails: `${line(8193)}\r\n\r\n`,
      code: "target-too-long",
      message: "A line of the head exceeds maxLineLength (8192)",
    },
    {
      title: "the length of a field",
      limits,
      passes: withField(field(100)),
      fails: withField(field(101)),
      message: "A line of the head exceeds maxLineLength (100)",
    },
    {
      title: "the size of the head",
      passes: head(16384),
      fails: head(16385),
      message: "The head exceeds maxHeadSize (16384)",
    },
    {
      title: "the size of the head, as set",
      limits: { maxHeadSize: 150 },
      passes: head(150),
      fails: head(151),
      message: "The head exceeds maxHeadSize (150)",
    },
  ];
  for (const { title, limits, passes, fails, code = "head-too-large", message } of borders) {
    it(`parseRequestHead limits ${title}`, () => {
      const status = code === "target-too-long" ? 414 : 431;
      assert.equal(parseRequestHead(latin1(passes), limits)?.length, passes.length);
      assert.throws(() => parseRequestHead(latin1(fails), limits), { code, status, message });
    });

    it(`parseRequestHead accepts a partial head within the limit of ${title}`, () => {
      for (let length = passes.length - 1; length > passes.length - 200; length--) {
        assert.equal(parseRequestHead(latin1(passes.slice(0, length)), limits), undefined);
      }
    });
  }

  it("parseRequestHead refuses a line that is too long before its end has come", () => {
    assert.throws(() => parseRequestHead(latin1("A".repeat(8194))), { code: "target-too-long" });
    const bytes = latin1("GET / HTTP/1.1\r\n" + "A".repeat(8194));
    assert.throws(() => parseRequestHead(bytes), { code: "head-too-large" });
  });

  it("parseResponseHead reports a first line that is too long as a head that is too large", () => {
    const bytes = latin1("HTTP/1.1 200 " + "a".repeat(9000));
    assert.throws(() => parseResponseHead(bytes), { code: "head-too-large" });
  });

  it("parseRequestHead takes a line of a megabyte where the limits allow it", () => {
    const limits = { maxLineLength: Infinity, maxHeadSize: Infinity };
    const value = " ".repeat(2 ** 19) + "b" + " ".repeat(2 ** 19) + "c";
    const parsed = parseRequestHead(latin1(withField(`A:${value} `)), limits);
    assert.equal(parsed?.head.headers[0][1], value.trim());
  });
});

describe("heads as text", () => {
  const response: ResponseHead = {
    version: "1.1",
    status: 101,
    statusText: "Switching Protocols",
    headers: [["A", "b: c"]],
  };

  it("requestOf and responseOf read what requestText and responseText write", () => {
    for (const version of ["1.1", "2.0"]) {
      const head = { ...REQUEST, version };
      assert.deepEqual(requestOf(requestText(head)), head);
      assert.deepEqual(responseOf(responseText({ ...response, version })), {
        ...response,
        version,
      });
    }
    assert.deepEqual(responseOf(responseText({ ...response, statusText: "", headers: [] })), {
      ...{ version: "1.1", status: 101, statusText: "", headers: [] },
    });
  });

  it("requestOf reads a head as it was sent, without the bytes after it", () => {
    assert.deepEqual(requestOf(HEAD), REQUEST);
    assert.deepEqual(requestOf(`${withField("A:b\r\nC: d ")}X: y\r\n\r\n`).headers, [
      ["A", "b"],
      ["C", "d"],
    ]);
  });
});

describe("serializeRequestHead", () => {
  it("serializeRequestHead writes what parseRequestHead reads", () => {
    const bytes = serializeRequestHead(REQUEST);
    assert.deepEqual(parseRequestHead(bytes), { head: REQUEST, length: bytes.length });
  });

  const wrong: readonly [title: string, Partial<RequestHead>][] = [
    ["a line break in the method", { method: "GET / HTTP/1.1\r\nA: b" }],
    ["an empty method", { method: "" }],
    ["a blank in the target", { target: "/ HTTP/1.1\r\nA: b" }],
    ["a LF in the target", { target: "/\nA:b" }],
    ["an empty target", { target: "" }],
    ["a target beyond ASCII", { target: "/\u010d\u010a" }],
    ["a line break in the version", { version: "1.1\r\nA: b" }],
    ...brokenFields(),
  ];
  for (const [title, change] of wrong) {
    it(`serializeRequestHead refuses ${title}`, () => {
      assert.throws(() => serializeRequestHead({ ...REQUEST, ...change }), { name: "TypeError" });
    });
  }
});

describe("serializeResponseHead", () => {
  const response: ResponseHead = {
    version: "1.1",
    status: 101,
    statusText: "Switching Protocols",
    headers: [["A", "\xe9 b"], ["a", ""]],
  };

  it("serializeResponseHead writes what parseResponseHead reads", () => {
    const bytes = serializeResponseHead(response);
    assert.deepEqual(parseResponseHead(bytes), { head: response, length: bytes.length });
    assert.equal(bytes.at(-1), 10);
  });

  const wrong: readonly [title: string, Partial<ResponseHead>][] = [
    ["a line break in the reason phrase", { statusText: "OK\r\nA: b" }],
    ["a LF in the reason phrase", { statusText: "OK\n" }],
    ["a reason phrase beyond Latin-1", { statusText: "\u010a" }],
    ["a line break in the version", { version: "1.1\r\nA: b" }],
    ["a status that is no number", { status: "200\r\nA: b" as unknown as number }],
    ["a status of two digits", { status: 99 }],
    ["a status of four digits", { status: 1000 }],
    ["a status with a fraction", { status: 200.5 }],
    ...brokenFields(),
  ];
  for (const [title, change] of wrong) {
    it(`serializeResponseHead refuses ${title}`, () => {
      assert.throws(() => serializeResponseHead({ ...response, ...change }), { name: "TypeError" });
    });
  }
});

/** Header fields that would inject other fields or lines. */
function brokenFields(): [title: string, { headers: RawHeaders }][] {
  const fields: [name: string, value: string][] = [
    ["A\r\nB", "c"],
    ["A: b\r\nC", "d"],
    ["", "a"],
    ["A ", "b"],
    ["A:", "b"],
    ["A", "b\r\nC: d"],
    ["A", "b\nC: d"],
    ["A", "b\r"],
    ["A", "b\0"],
    // Code units that would be line breaks if their upper byte were cut off.
    ["A", "b\u010d\u010aC: d"],
  ];
  return fields.map((field) => [`the field ${JSON.stringify(field)}`, { headers: [field] }]);
}

describe("HeadReader", () => {
  const rest = hex("81 00 0d 0a 0d 0a ff");

  it("HeadReader gives the head and the bytes after it, also byte by byte", () => {
    const reader = new HeadReader(parseRequestHead);
    const given = single(latin1(HEAD)).map((byte) => reader.push(byte));
    assert.deepEqual(given.pop(), { head: REQUEST, rest: new Uint8Array(0) });
    assert.ok(given.every((read) => read === undefined));
  });

  it("HeadReader gives the same wherever the input is cut", () => {
    const input = concat([latin1(HEAD), rest]);
    fc.assert(fc.property(offsets(input.length), (at) => {
      const reader = new HeadReader(parseRequestHead);
      const chunks = cut(input, ...at);
      let read: { head: RequestHead; rest: Uint8Array } | undefined;
      while (read === undefined) read = reader.push(chunks.shift()!);
      assert.deepEqual(read.head, REQUEST);
      assert.deepEqual(concat([read.rest, ...chunks]), rest);
    }));
  });

  it("HeadReader has the text of a head that came in one call, if nothing followed it", () => {
    const first = HEAD.indexOf("\n") + 1;
    const rows: [chunks: string[], text: string | undefined][] = [
      [[HEAD], HEAD],
      [[HEAD.slice(0, 5), HEAD.slice(5)], HEAD],
      [[HEAD.slice(0, 30), HEAD.slice(30)], undefined],
      [[`${HEAD}a`], undefined],
      // As many bytes follow as came before the last call.
      [[HEAD.slice(0, first), HEAD.slice(first) + "a".repeat(first)], undefined],
    ];
    for (const [chunks, text] of rows) {
      const reader = new HeadReader(parseRequestHead);
      const heads = chunks.map((chunk) => reader.push(latin1(chunk))?.head);
      assert.deepEqual(heads.pop(), REQUEST);
      assert.equal(reader.text, text);
    }
  });

  it("HeadReader takes a head of exactly the limits wherever it is cut", () => {
    const bytes = latin1(HEAD);
    const limits = { maxHeaderCount: 3, maxLineLength: 22, maxHeadSize: HEAD.length };
    for (let at = 0; at <= bytes.length; at++) {
      const reader = new HeadReader(parseRequestHead, limits);
      const [first, second] = cut(bytes, at).map((chunk) => reader.push(chunk));
      assert.deepEqual((first ?? second)?.head, REQUEST, `cut at ${at}`);
    }
  });

  it("HeadReader continues where it stopped, and reads each byte once", () => {
    let from = 0;
    const reader = new HeadReader((bytes, limits, progress) => {
      assert.equal(progress.seen, from);
      const parsed = parseRequestHead(bytes, limits, progress);
      // A CR waits for its LF.
      from = bytes.length - (bytes.at(-1) === 13 ? 1 : 0);
      return parsed;
    });
    const head = withField(Array(100).fill("A: " + "b".repeat(80)).join("\r\n"));
    const given = single(latin1(head)).map((byte) => reader.push(byte));
    assert.equal(given.at(-1)?.head.headers.length, 100);
  });

  it("HeadReader refuses an endless head byte by byte", () => {
    const reader = new HeadReader(parseRequestHead, { maxHeadSize: 2000 });
    let pushed = 0;
    assert.throws(() => {
      for (; pushed < 10000; pushed++) reader.push(latin1("A"));
    }, { code: "head-too-large" });
    assert.ok(pushed < 4000);
  });

  it("HeadReader neither changes its input nor returns a view of it", () => {
    const input = concat([latin1(HEAD), rest]);
    const read = new HeadReader<RequestHead>(parseRequestHead).push(input);
    assert.deepEqual(input, concat([latin1(HEAD), rest]));
    input.fill(0);
    assert.deepEqual(read?.rest, rest);
  });

  it("HeadReader passes its limits on", () => {
    const limits = { maxHeaderCount: 1 };
    const reader = new HeadReader((_, given): { head: HeadLimits; length: number } => {
      return { head: given, length: 0 };
    }, limits);
    assert.equal(reader.push(latin1("x"))?.head, limits);
  });
});

describe("HeadReader and interim responses", () => {
  const interim = (count: number) =>
    Array.from({ length: count }, (_, i) => `HTTP/1.1 10${[0, 2, 3][i % 3]} a\r\nA: b\r\n\r\n`)
      .join("");
  const final = "HTTP/1.1 200 OK\r\nB: c\r\n\r\n";

  it("HeadReader skips up to 16 of them, wherever the input is cut", () => {
    for (const count of [1, 2, 16]) {
      const input = latin1(interim(count) + final + "rest");
      for (const chunks of cuts(input)) {
        const reader = new HeadReader(parseResponseHead);
        const read = chunks.flatMap((chunk) => reader.push(chunk) ?? []);
        assert.deepEqual(read.map(({ head }) => head.headers), [[["B", "c"]]]);
        assert.equal(read[0].head.status, 200);
      }
    }
  });

  it("HeadReader refuses the 17th, and takes 101 as final", () => {
    const message = "The server sent more than 16 interim responses";
    assert.throws(() => new HeadReader(parseResponseHead).push(latin1(interim(17))), {
      code: "head-too-large",
      message,
    });
    const upgrade = latin1("HTTP/1.1 101 a\r\n\r\nrest");
    const read = new HeadReader(parseResponseHead).push(upgrade);
    assert.deepEqual([read?.head.status, read?.rest], [101, latin1("rest")]);
  });

  it("HeadReader does not need a chunk any more after the call", () => {
    const reader = new HeadReader(parseRequestHead);
    for (const chunk of cut(latin1(HEAD), 5, 20, HEAD.length - 1)) {
      const read = reader.push(chunk);
      chunk.fill(0);
      if (read) assert.deepEqual(read.head, REQUEST);
      else assert.equal(reader.startsWith("GET "), true);
      assert.equal(reader.startsWith("POST "), false);
    }
  });
});

describe("parseRequestHead and the beginning of a line", () => {
  it("parseRequestHead refuses an impossible request line at once", () => {
    const impossible = [
      " ",
      "GET  ",
      "GET /\r",
      "GET / HTTP/1.1 ",
      "GET / HTTP/1.1x",
      "GET / X",
      "G(",
      ":",
    ];
    for (const beginning of impossible) {
      assert.equal(parseRequestHead(latin1(beginning.slice(0, -1))), undefined, beginning);
      const message = /^The head does not begin with a request line .* \(byte 0 of the head\)$/;
      const parse = () => parseRequestHead(latin1(beginning));
      assert.throws(parse, { code: "malformed-head", message }, beginning);
    }
  });

  it("parseRequestHead reads values without blanks, and UTF-8 as Latin-1", () => {
    const euro = "\xe2\x82\xac";
    for (const value of ["b", "", "\xc3\xa9", euro, `${euro} \xff`, "\xef\xbb\xbf"]) {
      const parsed = parseRequestHead(latin1(withField(`A:${value}`)));
      assert.deepEqual(parsed?.head.headers, [["A", value]]);
    }
  });
});

describe("bodyFraming", () => {
  const framings: readonly [status: number, RawHeaders, ReturnType<typeof bodyFraming>][] = [
    [200, [], "until-close"],
    [400, [["Content-Length", "12"]], { length: 12 }],
    [400, [["content-length", "0"]], { length: 0 }],
    [400, [["Content-Length", "1".repeat(16)]], { length: 1111111111111111 }],
    [400, [["Content-Length", "9".repeat(400)]], { length: Infinity }],
    [400, [["Transfer-Encoding", "Chunked"]], "chunked"],
    [400, [["Transfer-Encoding", "chunked"], ["Content-Length", "3"]], "chunked"],
    [400, [["Transfer-Encoding", "gzip, chunked"]], "until-close"],
    [101, [["Content-Length", "12"]], { length: 0 }],
    [204, [["Content-Length", "12"]], { length: 0 }],
    [304, [["Transfer-Encoding", "chunked"]], { length: 0 }],
  ];
  for (const [status, headers, expected] of framings) {
    it(`bodyFraming of ${status} with ${headers.join("; ") || "no header"}`, () => {
      const head = { version: "1.1", status, statusText: "", headers };
      assert.deepEqual(bodyFraming(head), expected);
    });
  }

  it("bodyFraming refuses a Content-Length that is no number, or there twice", () => {
    const lengths = ["", "-1", "+1", "1.5", "0x10", "1, 1", "1 1"];
    const fields = lengths.map((length): RawHeaders => [["Content-Length", length]]);
    for (const headers of [...fields, [...fields[0], ...fields[0]]]) {
      const head = { version: "1.1", status: 400, statusText: "", headers };
      assert.throws(() => bodyFraming(head), { code: "malformed-header" });
    }
  });
});
