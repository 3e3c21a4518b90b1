/**
 * The features of two reference systems, wsproto (W) and websockets (K), in this library. A title names the
 * rows of the parity tables that its test shows. `deno task parity` lists the rows.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { CloseCode, Opcode, parseClose, serializeClose } from "../lib/core/mod.ts";
import { hex } from "./bytes.ts";

describe("Enumerations", () => {
  it("W48 the opcodes by name", () => {
    assert.deepEqual(
      { ...Opcode },
      { Continuation: 0, Text: 1, Binary: 2, Close: 8, Ping: 9, Pong: 10 },
    );
  });

  it("W49 the close codes by name", () => {
    assert.deepEqual(Object.values(CloseCode), [
      ...[1000, 1001, 1002, 1003],
      ...[1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013],
      ...[1014, 1015],
    ]);
    assert.equal(CloseCode.BadGateway, 1014);
  });

  it("W50 1005, 1006 and 1015 are never sent, nor taken from a frame", () => {
    assert.equal(serializeClose({ closeCode: CloseCode.NoStatus }).length, 0);
    for (const closeCode of [CloseCode.Abnormal, CloseCode.TlsHandshake]) {
      assert.throws(() => serializeClose({ closeCode }), RangeError);
    }
    for (const payload of ["03 ed", "03 ee", "03 f7"]) {
      assert.throws(() => parseClose(hex(payload)), { closeCode: 1002 });
    }
  });
});
