import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { CloseCode, type CloseInfo, parseClose, serializeClose } from "../lib/core/mod.ts";
import { isWireCloseCode, PRIVATE_USE } from "../lib/core/close.ts";
import { MAX_REASON_LENGTH, truncateReason } from "../lib/core/error.ts";
import { concat, hex, utf8 } from "./bytes.ts";
import { fc, text } from "./property.ts";

/** The codes that a Close frame can hold. 5001 stands for all codes from 5002 to 65534 too. */
const RANGES: readonly { from: number; to: number; wire: boolean }[] = [
  { from: 0, to: 999, wire: false },
  { from: 1000, to: 1003, wire: true },
  { from: 1004, to: 1006, wire: false },
  { from: 1007, to: 1014, wire: true },
  { from: 1015, to: 2999, wire: false },
  { from: 3000, to: 4999, wire: true },
  { from: 5000, to: 5001, wire: false },
  { from: 65535, to: 65535, wire: false },
];

const EXPECTED = "Expected closeCode to be 1000-1003, 1007-1014 or 3000-4999, received";

for (const { from, to, wire } of RANGES) {
  const codes = Array.from({ length: to - from + 1 }, (_, i) => from + i);

  describe(`Close codes ${from} to ${to}`, () => {
    it(`isWireCloseCode says ${wire}`, () => {
      for (const code of codes) assert.equal(isWireCloseCode(code), wire, `${code}`);
    });

    it(`parseClose ${wire ? "takes" : "refuses"} them`, () => {
      for (const closeCode of codes) {
        const payload = Uint8Array.of(closeCode >> 8, closeCode & 0xff);
        if (wire) assert.deepEqual(parseClose(payload), { closeCode, reason: "" });
        else {assert.throws(
            () => parseClose(payload),
            failure(1002, `The Close frame has the code ${closeCode}, which must not be sent`),
          );}
      }
    });

    it(`serializeClose ${wire ? "takes" : "refuses"} them`, () => {
      // 1005 means a frame without a code.
      for (const closeCode of codes.filter((code) => code !== CloseCode.NoStatus)) {
        const payload = Uint8Array.of(closeCode >> 8, closeCode & 0xff, 0x78);
        const info = { closeCode, reason: "x" };
        if (wire) assert.deepEqual(serializeClose(info), payload);
        else assert.throws(() => serializeClose(info), rangeError(`${EXPECTED} ${closeCode}`));
      }
    });
  });
}

describe("isWireCloseCode", () => {
  it("isWireCloseCode refuses numbers that are not integers", () => {
    for (const code of [-1000, 1000.5, NaN, Infinity]) assert.ok(!isWireCloseCode(code), `${code}`);
  });
});

describe("CloseCode", () => {
  it("CloseCode has the codes of the IANA registry", () => {
    assert.deepEqual(CloseCode, {
      Normal: 1000,
      GoingAway: 1001,
      ProtocolError: 1002,
      UnsupportedData: 1003,
      NoStatus: 1005,
      Abnormal: 1006,
      InvalidPayload: 1007,
      PolicyViolation: 1008,
      MessageTooBig: 1009,
      MandatoryExtension: 1010,
      InternalError: 1011,
      ServiceRestart: 1012,
      TryAgainLater: 1013,
      BadGateway: 1014,
      TlsHandshake: 1015,
    });
  });

  it("Each code of the protocol becomes one for private use", () => {
    assert.deepEqual([CloseCode.PolicyViolation + PRIVATE_USE, 1000 + PRIVATE_USE], [4008, 4000]);
  });
});

describe("parseClose", () => {
  it("parseClose takes an empty payload as 1005", () => {
    assert.deepEqual(parseClose(hex("")), { closeCode: 1005, reason: "" });
  });

  it("parseClose refuses a payload of one byte", () => {
    const message = "The payload of the Close frame has 1 byte, but a close code has 2";
    assert.throws(() => parseClose(hex("03")), failure(1002, message));
  });

  it("parseClose reads the reason, a byte order mark too", () => {
    const payload = concat([hex("0f a1"), utf8("\ufeffbis später 😀")]);
    assert.deepEqual(parseClose(hex("0f a1 61")), { closeCode: 4001, reason: "a" });
    assert.deepEqual(parseClose(payload), { closeCode: 4001, reason: "\ufeffbis später 😀" });
  });

  it("parseClose refuses a reason that is not UTF-8, at the byte", () => {
    for (const [reason, at] of [["61 80", 1], ["ed a0 80", 1], ["61 62 c3", 3]] as const) {
      const message = `Invalid UTF-8 in a close reason, at byte ${at}`;
      assert.throws(() => parseClose(hex(`03 e8 ${reason}`)), failure(1007, message));
    }
  });
});

describe("serializeClose", () => {
  it("serializeClose writes an empty payload for 1005 or without a code", () => {
    const infos: CloseInfo[] = [{}, { closeCode: 1005 }, { closeCode: 1005, reason: "" }];
    for (const info of infos) assert.equal(serializeClose(info).length, 0);
  });

  it("serializeClose takes a reason of 123 bytes and refuses one of 124", () => {
    for (const reason of ["x".repeat(123), "é".repeat(61) + "x", "€".repeat(41)]) {
      const payload = serializeClose({ closeCode: 1000, reason });
      assert.deepEqual(parseClose(payload), { closeCode: 1000, reason });
      assert.equal(payload.length, 125);
      const message = "Expected reason to be at most 123 bytes of UTF-8, received 124";
      const longer = { closeCode: 1000, reason: reason + "x" };
      assert.throws(() => serializeClose(longer), rangeError(message));
    }
  });

  it("serializeClose refuses a reason without a code", () => {
    const message = "Expected a closeCode with the reason, received a reason alone";
    for (const info of [{ reason: "x" }, { closeCode: 1005, reason: "x" }]) {
      assert.throws(() => serializeClose(info), rangeError(message));
    }
  });

  it("serializeClose refuses other types, so that no memory goes out as a reason", () => {
    const wrong: [value: unknown, message: string][] = [
      [{ closeCode: "1000" }, "Expected closeCode to be a number, received string"],
      [{ closeCode: null }, "Expected closeCode to be a number, received object"],
      [{ closeCode: 1000, reason: 100 }, "Expected reason to be a string, received number"],
      [{ closeCode: 1000, reason: hex("61") }, "Expected reason to be a string, received object"],
    ];
    for (const [value, message] of wrong) {
      assert.throws(() => serializeClose(value as CloseInfo), { name: "TypeError", message });
    }
  });

  it("serializeClose refuses codes that are not integers", () => {
    for (const closeCode of [1000.5, NaN, Infinity, -1]) {
      assert.throws(() => serializeClose({ closeCode }), rangeError(`${EXPECTED} ${closeCode}`));
    }
  });
});

describe("truncateReason", () => {
  const kept: readonly [reason: string, kept: string][] = [
    ["", ""],
    ["x".repeat(123), "x".repeat(123)],
    ["x".repeat(124), "x".repeat(123)],
    ["é".repeat(62), "é".repeat(61)],
    ["x" + "é".repeat(61), "x" + "é".repeat(61)],
    ["€".repeat(41) + "x", "€".repeat(41)],
    ["xx" + "€".repeat(41), "xx" + "€".repeat(40)],
    ["😀".repeat(31), "😀".repeat(30)],
    ["xxx" + "😀".repeat(31), "xxx" + "😀".repeat(30)],
  ];
  it("truncateReason cuts between two characters", () => {
    for (const [reason, expected] of kept) assert.equal(truncateReason(reason), expected);
  });

  it("truncateReason gives as much of the beginning as serializeClose takes", () => {
    fc.assert(fc.property(text, (reason) => {
      const cut = truncateReason(reason);
      assert.ok(reason.startsWith(cut));
      serializeClose({ closeCode: 1000, reason: cut });
      const [next = ""] = reason.slice(cut.length);
      assert.ok(next === "" || utf8(cut + next).length > MAX_REASON_LENGTH);
    }));
  });
});

function failure(closeCode: number, message: string): object {
  return { name: "RemoteProtocolError", closeCode, message };
}

function rangeError(message: string): object {
  return { name: "RangeError", message };
}
