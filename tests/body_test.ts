import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  type BodyFraming,
  BodyReader,
  bodyReader,
  BodyWriter,
  requestFraming,
} from "../lib/core/body.ts";
import type { RawHeaders } from "../lib/core/mod.ts";
import { assertSameBytes, concat, cuts, latin1, pattern, utf8 } from "./bytes.ts";

const LOST = "The connection ended before the body was complete";

/** A chunk line of this length with its CR LF. */
const line = (length: number) => `5;${"x".repeat(length - 4)}\r\n`;

describe("BodyReader", () => {
  /** The input, the body in it, and what the reader is then: finished, waiting, or why it failed. */
  const rows: readonly [
    title: string,
    framing: BodyFraming,
    input: string,
    body: string,
    end: true | false | string,
  ][] = [
    ["no bytes", { length: 0 }, "", "", true],
    ["the bytes after an empty body", { length: 0 }, "dropped", "", true],
    ["a length", { length: 5 }, "hello", "hello", true],
    ["a length of one byte", { length: 1 }, "h", "h", true],
    ["the bytes after a length", { length: 5 }, "hello, world", "hello", true],
    ["less than a length", { length: 5 }, "hell", "hell", false],
    ["less than a length beyond all numbers", { length: Infinity }, "hell", "hell", false],
    ["everything until the end", "until-close", "0\r\n\r\nhello", "0\r\n\r\nhello", false],
    ["no chunk", "chunked", "0\r\n\r\n", "", true],
    ["no chunk, by a size of many digits", "chunked", "000\r\n", "", true],
    ["chunks", "chunked", "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "hello", true],
    ["the bytes after the last chunk", "chunked", "1\r\nh\r\n0\r\nA: b\r\n\r\nmore", "h", true],
    ["a chunk of LFs", "chunked", "3\r\n\n\r\n\r\n0\r\n\r\n", "\n\r\n", true],
    ["sizes in upper case", "chunked", `1A\r\n${"x".repeat(26)}\r\n0\r\n`, "x".repeat(26), true],
    ["sizes in lower case", "chunked", `0f\r\n${"x".repeat(15)}\r\n0\r\n`, "x".repeat(15), true],
    ["a size with blanks", "chunked", "1 \t\r\nh\r\n0\r\n", "h", true],
    ["a chunk extension", "chunked", '1 ;a="b";\xff\r\nh\r\n0;a\r\n', "h", true],
    ["a part of a size", "chunked", "1\r\nh\r\n0", "h", false],
    ["a part of a chunk", "chunked", "5\r\nhe", "he", false],
    ["a chunk without its end", "chunked", "2\r\nhe", "he", false],
    ["a size that is no number", "chunked", "x\r\n0\r\n", "", "a chunk begins without its size"],
    ["a negative size", "chunked", "-1\r\nh\r\n", "", "a chunk begins without its size"],
    ["a hexadecimal prefix", "chunked", "0x1\r\nh\r\n", "", "a chunk begins without its size"],
    ["an empty line as size", "chunked", "\r\n", "", "a chunk begins without its size"],
    ["a size with a blank before", "chunked", " 1\r\nh\r\n", "", "a chunk begins without its size"],
    ["a size that ends with LF", "chunked", "1\nh\r\n", "", "a chunk begins without its size"],
    ["a CR in an extension", "chunked", "1;\r\r\nh\r\n", "", "a chunk begins without its size"],
    ["a chunk that is too long", "chunked", "1\r\nhe\r\n", "h", "a chunk is longer than announced"],
    [
      "a chunk that ends with LF",
      "chunked",
      "1\r\nh\n0\r\n",
      "h",
      "a chunk is longer than announced",
    ],
    [
      "a second chunk without its size",
      "chunked",
      "1\r\nh\r\nx\r\n",
      "h",
      "a chunk begins without its size",
    ],
    ["a line of 1024 bytes", "chunked", `${line(1024)}hello\r\n0\r\n`, "hello", true],
    [
      "a line of 1025 bytes",
      "chunked",
      line(1025),
      "",
      "a chunk begins with a line that is too long",
    ],
    [
      "a line of 1024 bytes that goes on",
      "chunked",
      "5;" + "x".repeat(1022),
      "",
      "a chunk begins with a line that is too long",
    ],
    ["a line of 1023 bytes that goes on", "chunked", "5;" + "x".repeat(1021), "", false],
  ];
  for (const [title, framing, input, body, end] of rows) {
    it(`BodyReader reads ${title}, wherever the input is cut`, () => {
      const bytes = latin1(input);
      for (const chunks of [[bytes], ...cuts(bytes)]) {
        const reader = new BodyReader(framing);
        const read = chunks.map((chunk) => reader.push(chunk));
        assert.deepEqual(concat(read), latin1(body));
        const { failure } = reader;
        if (typeof end === "boolean") assert.equal(failure, undefined);
        else {
          assert.equal(failure?.message, `The body is malformed: ${end}`);
          assert.equal(failure.code, "malformed-body");
          assert.deepEqual(reader.push(utf8("5\r\nhello")), new Uint8Array(0), "it stays failed");
        }
        assert.equal(reader.finished, end === true);
        reader.end();
        const isWhole = end === true || framing === "until-close";
        assert.equal(reader.finished, isWhole);
        if (typeof end === "string") assert.equal(reader.failure, failure, "the first failure");
        else assert.equal(reader.failure?.message, isWhole ? undefined : LOST);
        if (end === false && !isWhole) assert.equal(reader.failure?.code, "connection-lost");
      }
    });
  }

  it("BodyReader is finished at once if there is no body", () => {
    assert.equal(new BodyReader({ length: 0 }).finished, true);
    assert.equal(new BodyReader({ length: 1 }).finished, false);
    assert.equal(new BodyReader("chunked").finished, false);
    assert.equal(new BodyReader("until-close").finished, false);
  });

  it("BodyReader returns a view if the body is in one part", () => {
    const bytes = utf8("5\r\nhello\r\n");
    assert.equal(new BodyReader("chunked").push(bytes).buffer, bytes.buffer);
  });

  it("bodyReader has failed if the framing is wrong", () => {
    const head = { version: "1.1", status: 400, statusText: "" };
    const field = (value: string): RawHeaders => [["Content-Length", value]];
    assert.equal(bodyReader({ ...head, headers: field("x") }).failure?.code, "malformed-header");
    const reader = bodyReader({ ...head, headers: field("2") });
    assert.equal(reader.failure, undefined);
    assert.deepEqual(reader.push(utf8("abc")), utf8("ab"));
  });
});

describe("requestFraming", () => {
  const LENGTH = "Content-Length";
  const CODING = "Transfer-Encoding";
  const framings: readonly [headers: RawHeaders, expected: BodyFraming][] = [
    [[[LENGTH, "5"]], { length: 5 }],
    [[["content-length", "05"]], { length: 5 }],
    [[[CODING, "chunked"]], "chunked"],
    [[["transfer-encoding", " Chunked "]], "chunked"],
  ];
  for (const [headers, expected] of framings) {
    it(`requestFraming of ${headers.join("; ")}`, () => {
      const head = { method: "POST", target: "/", version: "1.1", headers };
      assert.deepEqual(requestFraming(head), expected);
    });
  }

  const refused: readonly [
    headers: RawHeaders,
    status: number,
    message: string,
    version?: string,
  ][] = [
    [[], 400, "The Content-Length is not a number of bytes: undefined"],
    [[[LENGTH, ""]], 400, 'The Content-Length is not a number of bytes: ""'],
    [[[LENGTH, "-5"]], 400, 'The Content-Length is not a number of bytes: "-5"'],
    [[[LENGTH, "5x"]], 400, 'The Content-Length is not a number of bytes: "5x"'],
    [
      [[LENGTH, "5"], [CODING, "chunked"]],
      400,
      "The request has both Content-Length and Transfer-Encoding",
    ],
    [[[CODING, "chunked"]], 400, "A request of HTTP/1.0 must not have Transfer-Encoding", "1.0"],
    [[[CODING, "gzip"]], 501, "The transfer coding is not supported: gzip"],
    [
      [[CODING, "gzip"], [CODING, "chunked"]],
      501,
      "The transfer coding is not supported: gzip, chunked",
    ],
  ];
  for (const [headers, status, message, version = "1.1"] of refused) {
    it(`requestFraming refuses ${headers.join("; ") || "no field"} of HTTP/${version}`, () => {
      const head = { method: "POST", target: "/", version, headers };
      assert.throws(() => requestFraming(head), { code: "body", status, message });
    });
  }
});

describe("BodyWriter", () => {
  const write = (framing: BodyFraming, parts: string[], last = true) => {
    const writer = new BodyWriter(framing);
    const written = parts.map((part, i) => {
      const bytes = utf8(part);
      const framed = writer.write(bytes, last && i === parts.length - 1);
      bytes.fill(0);
      return framed;
    });
    return new TextDecoder().decode(concat(written));
  };

  it("BodyWriter writes copies of the parts of a body", () => {
    assert.equal(write({ length: 5 }, ["he", "", "llo"]), "hello");
    assert.equal(write({ length: 0 }, [""]), "");
    assert.equal(write("until-close", ["he", "", "llo"]), "hello");
    assert.equal(write("chunked", ["he", "", "llo"]), "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
    assert.equal(write("chunked", ["x".repeat(26)], false), `1a\r\n${"x".repeat(26)}\r\n`);
    assert.equal(write("chunked", ["he", ""]), "2\r\nhe\r\n0\r\n\r\n");
  });

  it("BodyWriter refuses a body that has not its announced length", () => {
    const refused: readonly [length: number, parts: string[], size: number][] = [
      [5, ["hello!"], 6],
      [5, ["hell", "o!"], 6],
      [5, ["hell"], 4],
      [5, ["he", ""], 2],
      [0, ["h"], 1],
    ];
    for (const [length, parts, size] of refused) {
      const message =
        `The body has ${size} bytes instead of the ${length} bytes of its Content-Length`;
      assert.throws(() => write({ length }, parts), { name: "LocalProtocolError", message });
    }
    assert.equal(write({ length: 5 }, ["he"], false), "he", "more may follow");
  });

  it("BodyWriter writes what BodyReader reads", () => {
    for (const length of [0, 1, 15, 16, 70_000]) {
      for (const framing of [{ length }, "chunked"] as const) {
        const reader = new BodyReader(framing);
        const writer = new BodyWriter(framing);
        assertSameBytes(reader.push(writer.write(pattern(length), true)), pattern(length));
        assert.equal(reader.finished, true);
      }
    }
  });
});
