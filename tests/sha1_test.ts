import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { base64, sha1 } from "../lib/core/sha1.ts";
import { hex, pattern } from "./bytes.ts";

describe("sha1", () => {
  it("sha1 returns the digests of RFC 3174 §7.3", () => {
    const rows: readonly [message: string, digest: string][] = [
      ["abc", "a9993e36 4706816a ba3e2571 7850c26c 9cd0d89d"],
      [
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "84983e44 1c3bd26e baae4aa1 f95129e5 e54670f1",
      ],
      ["0123456701234567".repeat(40), "dea356a2 cddd90c7 a7ecedc5 ebb56393 4f460452"],
    ];
    for (const [message, digest] of rows) assert.deepEqual(sha1(message), hex(digest));
  });

  it("sha1 returns what node:crypto does for each length around the ends of its blocks", () => {
    for (let length = 0; length <= 200; length++) {
      const message = pattern(length);
      const expected = createHash("sha1").update(message).digest();
      const text = String.fromCharCode(...message);
      assert.deepEqual(sha1(text), new Uint8Array(expected), `${length} bytes`);
    }
  });
});

describe("base64", () => {
  it("base64 encodes any bytes, with padding", () => {
    for (let length = 0; length <= 300; length++) {
      const bytes = pattern(length);
      assert.equal(base64(bytes), Buffer.from(bytes).toString("base64"));
    }
  });
});
