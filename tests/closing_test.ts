/** The end of a connection as a state machine, over parts that note what they are told. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { type CloseInfo, RemoteProtocolError, type Role } from "../lib/core/mod.ts";
import {
  checkCloseInfo,
  Closing,
  type ClosingParts,
  type LeaveRule,
} from "../lib/connection/closing.ts";
import type { End } from "../lib/connection/inbox.ts";
import { errorCodeOf } from "../lib/core/error_code.ts";
import { WebSocketError, webSocketError } from "../lib/core/error.ts";
import { nextTurn } from "../lib/timers.ts";
import { isPending, rejection } from "./support.ts";
import { inVirtualTime } from "./virtual_time.ts";

interface Setting {
  role?: Role;
  timeout?: number;
  pending?: boolean;
  isPaused?: boolean;
  isStreaming?: boolean;
  awaited?: boolean;
  /** Whether nobody has asked for `closed`. */
  isIgnored?: boolean;
}

function closingOf(setting: Setting = {}) {
  const { role = "server", timeout = 0, isPaused = false, ...state } = setting;
  const notes: string[] = [];
  const note = (text: string) => () => void notes.push(text);
  const ends: (End & { released?: boolean })[] = [];
  const sent: unknown[] = [];
  const budget = { taken: 0 };
  const parts = {
    machine: {
      role,
      write: ({ closeCode, reason }: Required<CloseInfo>) =>
        void notes.push(`write ${closeCode} ${reason}`.trim()),
      dispose: note("dispose"),
    },
    transport: { end: note("end"), destroy: note("destroy") },
    receiver: {
      budget,
      awaited: state.awaited ?? false,
      end: (end: End) => void ends.push(end),
      release: (end: End) => void ends.push({ ...end, error: end.error, released: true }),
    },
    sender: {
      pending: state.pending ?? false,
      sink: state.isStreaming ? {} : undefined,
      beforeClose: (write: () => void) => write(),
      flush: note("flush"),
      flushAll: note("flushAll"),
      checkLent: note("checkLent"),
      leaveCrowd: () => {},
      end: () => void sent.push(closing.endError()),
    },
    keepalive: { cancel: note("cancel") },
    pings: { fail: (error: () => unknown) => void sent.push(error()) },
    pump: note("pump"),
    isPaused,
  };
  const closing: Closing = new Closing(parts as unknown as ClosingParts, timeout);
  const told: unknown[] = [];
  if (!setting.isIgnored) {
    closing.closed.then(() => told.push("closed"), (error) => told.push("closed", error));
  }
  // In a microtask, as `closed`, so that the order of both is seen.
  closing.whenEnded((error) => queueMicrotask(() => told.push("ended", error)));
  return { closing, parts, notes, ends, sent, told, budget };
}

const close = (closeCode: number, reason = "") => ({ type: "close", closeCode, reason }) as const;

/** Waits until the end of the input was handled. */
const later = () => new Promise<void>((resolve) => nextTurn(() => nextTurn(resolve)));

/** What the phases mean: reading, sending, writing a Close frame, answering pings, and the state. */
function view(closing: Closing): string {
  const { phase, isReading, canSend, canWrite, state } = closing;
  const can = [
    isReading && "read",
    canSend && "send",
    canWrite && "write",
    closing.canAnswer() && "answer",
  ];
  return `${phase}: ${can.filter(Boolean).join(" ")} (${state})`;
}

type Step = (all: ReturnType<typeof closingOf>) => unknown;

const closes: Step = ({ closing }) => closing.startClose({ closeCode: 1000 });
const receives: Step = async ({ closing }) => {
  closing.inputOver(close(1001, "away"));
  await later();
};
const fails: Step = ({ closing }) => closing.fail(1011, "fault");
const halfCloses: Step = ({ closing }) => closing.transportHalfClosed();
const lost: Step = ({ closing }) => closing.transportClosed(undefined);
const ends: Step = async ({ closing }) => {
  closing.inputOver(undefined);
  await later();
};
const terminates: Step = ({ closing }) => closing.terminate();

const OPEN = "open: read send write answer (open)";
const CLOSING = "closing: read answer (closing)";
const SHAKEN = "shaken:  (closing)";
const FAILED = "failed:  (closed)";
const ENDED = "ended:  (closed)";

describe("Closing", () => {
  /** Steps, and after each one the phase and what was told to the parts. */
  const courses: [
    name: string,
    setting: Setting,
    steps: [Step, phase: string, notes: string[]][],
  ][] = [
    ["close() of a server", {}, [
      [closes, CLOSING, ["cancel", "write 1000", "flush"]],
      [closes, CLOSING, []],
      [halfCloses, CLOSING, ["pump"]],
      [receives, SHAKEN, ["flushAll", "end"]],
      [receives, SHAKEN, []],
      [closes, SHAKEN, []],
      [halfCloses, SHAKEN, ["end"]],
      [lost, ENDED, ["checkLent", "dispose"]],
      [closes, ENDED, []],
      [fails, ENDED, []],
      [terminates, ENDED, []],
      [lost, ENDED, ["checkLent"]],
    ]],
    ["close() of a client, which waits for the server to end", { role: "client" }, [
      [closes, CLOSING, ["cancel", "write 1000", "flush"]],
      [receives, SHAKEN, ["flushAll"]],
      [terminates, SHAKEN, ["destroy"]],
    ]],
    ["a Close of the peer of a server", {}, [
      [({ closing }) => closing.inputOver(close(1001)), "draining: send write answer (open)", [
        "cancel",
      ]],
      [later, SHAKEN, ["write 1001", "flushAll", "end"]],
      [fails, FAILED, ["flushAll", "end"]],
      [halfCloses, FAILED, ["end"]],
      [lost, ENDED, ["checkLent", "dispose"]],
    ]],
    ["a Close of a server that has ended its side", { role: "client" }, [
      [halfCloses, OPEN, ["pump"]],
      [receives, SHAKEN, ["cancel", "write 1001 away", "flushAll", "end"]],
    ]],
    ["a Close of the peer, and close() at the same time", {}, [
      [({ closing }) => closing.inputOver(close(1001)), "draining: send write answer (open)", [
        "cancel",
      ]],
      [halfCloses, "draining: send write answer (open)", []],
      [closes, "draining-closing:  (closing)", ["write 1000", "flush"]],
      [later, SHAKEN, ["flushAll", "end"]],
    ]],
    ["a Close of the peer while messages wait", { pending: true }, [
      [receives, FAILED, ["cancel", "write 1001 away", "flushAll", "end"]],
    ]],
    ["a Close of the peer, then the end of the transport", {}, [
      [({ closing }) => closing.inputOver(close(1001)), "draining: send write answer (open)", [
        "cancel",
      ]],
      [({ closing }) => closing.transport = "closed", "draining: send write answer (open)", []],
      [later, ENDED, ["write 1001", "dispose"]],
    ]],
    ["the end of the transport", {}, [
      [lost, OPEN, ["checkLent", "cancel", "pump"]],
      [ends, ENDED, ["cancel", "dispose"]],
    ]],
    ["the end of the input", {}, [
      [ends, FAILED, ["cancel", "flushAll", "end"]],
      [ends, FAILED, []],
    ]],
    ["a violation of the peer", {}, [
      [
        ({ closing }) => closing.inputOver(new RemoteProtocolError("fault", 1007)),
        "draining: send write answer (open)",
        ["cancel"],
      ],
      [later, FAILED, ["write 1007 fault", "flushAll", "end"]],
    ]],
    ["a failure", {}, [
      [fails, FAILED, ["write 1011 fault", "cancel", "flushAll", "end"]],
      [fails, FAILED, []],
      [receives, FAILED, []],
    ]],
    ["a failure while input waits", { isPaused: true }, [
      [fails, FAILED, ["write 1011 fault", "cancel", "pump", "flushAll", "end"]],
    ]],
    ["close() while input waits", { isPaused: true }, [
      [closes, CLOSING, ["cancel", "write 1000", "flush", "pump"]],
      [fails, FAILED, ["pump", "flushAll", "end"]],
    ]],
    ["terminate()", { role: "client" }, [
      [terminates, FAILED, ["cancel", "destroy"]],
      [terminates, FAILED, ["destroy"]],
      [lost, ENDED, ["checkLent", "dispose"]],
    ]],
    ["terminate() after the end of the transport", {}, [
      [lost, OPEN, ["checkLent", "cancel", "pump"]],
      [terminates, ENDED, ["cancel", "dispose"]],
    ]],
  ];
  for (const [name, setting, steps] of courses) {
    it(`Closing: ${name}`, async () => {
      const all = closingOf(setting);
      assert.equal(view(all.closing), OPEN);
      for (const [i, [step, phase, notes]] of steps.entries()) {
        await step(all);
        assert.deepEqual([view(all.closing), all.notes.splice(0)], [phase, notes], `step ${i}`);
      }
    });
  }

  it("Closing waits until no message was taken for a turn", async () => {
    const { closing, budget } = closingOf();
    closing.inputOver(close(1000));
    for (let turn = 0; turn < 3; turn++) {
      budget.taken++;
      await new Promise<void>((resolve) => nextTurn(resolve));
      assert.equal(closing.phase, "draining");
    }
    await later();
    assert.equal(closing.phase, "shaken");
  });

  it("Closing describes the Close frames in their order", async () => {
    const what = (state: string, frames: string) =>
      `Cannot send: the connection is ${state} (${frames})`;
    const rows: [Step[], details: object | undefined, message: string][] = [
      [[], undefined, what("open", "no Close frame either way")],
      [
        [closes],
        { sent: { closeCode: 1000, reason: "" }, first: "sent" },
        what("closing", "sent 1000"),
      ],
      [
        [closes, receives],
        {
          received: { closeCode: 1001, reason: "away" },
          sent: { closeCode: 1000, reason: "" },
          first: "sent",
        },
        what("closing", 'sent 1000; then received 1001 "away"'),
      ],
      [
        [receives],
        {
          received: { closeCode: 1001, reason: "away" },
          sent: { closeCode: 1001, reason: "away" },
          first: "received",
        },
        what("closing", 'received 1001 "away"; then sent 1001 "away"'),
      ],
    ];
    for (const [steps, expected, message] of rows) {
      const all = closingOf();
      const { closing } = all;
      const open = closing.closedError();
      assert.equal(closing.startedAt, undefined);
      for (const step of steps) await step(all);
      assert.deepEqual(closing.details, expected);
      const error = closing.closedError();
      assert.equal(error.message, message);
      assert.equal(closing.closedError(), error, "the same while the message is the same");
      assert.equal(open === error, steps.length === 0);
      assert.equal(closing.isOwnError(error), true);
      assert.equal(typeof closing.startedAt, steps.length === 0 ? "undefined" : "number");
    }
    const { closing } = closingOf();
    const before = closing.refusal("fault", "busy");
    closing.error = webSocketError("ended", 1006, "");
    assert.notEqual(closing.refusal("fault", "busy"), before);
    assert.deepEqual([closing.isOwnError(undefined), closing.isOwnError(closing.error)], [
      false,
      true,
    ]);
    assert.equal(closing.isOwnError(new Error("other")), false);
    const { closing: other } = closingOf();
    assert.equal(other.isOwnError(undefined), false);
  });

  it("An error that several calls get has the stack of the last one", async () => {
    const { closing } = closingOf();
    const first = closing.closedError();
    const error = await new Promise<Error>((resolve) => {
      setTimeout(function callAgain() {
        const again = closing.closedError();
        resolve(again);
      }, 0);
    });
    assert.equal(error, first);
    assert.match(error.stack!, /callAgain/);
  });

  it("Closing sends the code that close() implies", () => {
    const rows: [CloseInfo, note: string][] = [
      [{}, "write 1005"],
      [{ reason: "r" }, "write 1000 r"],
      [{ closeCode: 4000 }, "write 4000"],
      [{ closeCode: 4000, reason: "r" }, "write 4000 r"],
    ];
    for (const [info, note] of rows) {
      const { closing, notes } = closingOf();
      closing.startClose(info);
      assert.equal(notes[1], note);
    }
  });

  it("Closing tells a clean end once the transport has ended", async () => {
    for (const isStreaming of [false, true]) {
      const all = closingOf({ isStreaming });
      const { closing, told, sent } = all;
      for (const step of [closes, receives, lost]) {
        assert.deepEqual([told, all.ends], [[], []]);
        await step(all);
      }
      const [end] = all.ends;
      assert.deepEqual([end.clean, end.closeCode, all.ends.length], [true, 1001, 1]);
      const error = end.error as Error;
      assert.match(error.message, /^The connection was closed \(sent 1000; then received 1001/);
      assert.deepEqual([errorCodeOf(error), end.error, closing.isOwnError(error)], [
        "closed",
        error,
        true,
      ]);
      assert.equal(sent[0], error, "what pings reject with");
      if (isStreaming) {
        assert.deepEqual(told, [], "a pipe has a turn to close the other end");
        await later();
      }
      assert.deepEqual(await closing.closed, { closeCode: 1001, reason: "away" });
      assert.deepEqual(told, ["closed", "ended", undefined]);
      assert.match((sent[1] as Error).message, /^Cannot send: the connection is closed/);
      assert.equal(sent.length, 2);
      closing.whenEnded((error) => all.told.push("late", error));
      assert.deepEqual(told.slice(3), ["late", undefined]);
    }
  });

  const resets = (error: Error): Step[] => [
    ({ closing }) => closing.transportClosed(error),
    ends,
  ];
  const own = webSocketError("own", null, "");
  const failures: [
    name: string,
    setting: Setting,
    steps: Step[],
    message: RegExp,
    code: [closeCode: number | null, code: string],
    clean: boolean,
  ][] = [
    ["a failure", {}, [fails], /^fault$/, [1011, "callback-failed"], false],
    [
      "a Close while messages wait",
      { pending: true },
      [receives],
      /^The peer has closed while messages waited to be sent \(received 1001 "away"; then sent/,
      [1001, "unsent"],
      true,
    ],
    [
      "a Close that cannot be answered",
      {},
      [
        ({ closing }) => closing.inputOver(close(1001)),
        ({ closing }) => closing.transport = "closed",
        later,
      ],
      /^The peer has closed before it was answered/,
      [1001, "connection-lost"],
      false,
    ],
    ["an end", {}, [ends], /^The transport ended without a Close frame \(no Close frame either/, [
      1006,
      "connection-lost",
    ], false],
    [
      "a reset",
      {},
      resets(new Error("reset")),
      /^The transport ended without a Close frame: reset \(no/,
      [1006, "connection-lost"],
      false,
    ],
    ["an error of a native WebSocket", {}, resets(own), /^own$/, [null, "connection-lost"], false],
    [
      "terminate()",
      {},
      [terminates],
      /^The connection was terminated$/,
      [1006, "terminated"],
      false,
    ],
  ];
  for (const [name, setting, steps, message, [closeCode, code], clean] of failures) {
    it(`Closing tells ${name} at once`, async () => {
      const all = closingOf(setting);
      const { closing, told, sent } = all;
      const closed = closing.closed;
      for (const step of steps) await step(all);
      const error = closing.error!;
      assert.ok(error instanceof WebSocketError);
      assert.match(error.message, message);
      assert.deepEqual([error.closeCode, errorCodeOf(error)], [closeCode, code]);
      assert.equal(await rejection(closed), error);
      assert.deepEqual(told.slice(0, 2), ["closed", error]);
      const [end] = all.ends;
      assert.deepEqual([all.ends.length, end.clean, end.closeCode, end.error], [
        1,
        clean,
        closeCode ?? undefined,
        error,
      ]);
      assert.equal(sent[0], error);
      if (clean) assert.match((sent[1] as Error).message, /^Cannot send/);
      else assert.equal(sent[1], error);
      if (closing.transport === "open") {
        assert.equal(told.length, 2);
        await lost(all);
        await later();
      }
      assert.deepEqual(told, ["closed", error, "ended", error]);
      assert.deepEqual([sent.length, all.ends.length], [2, 1]);
      closing.whenEnded((late) => all.told.push(late));
      assert.equal(told.length, 5);
    });
  }

  const leaves: [
    name: string,
    rule: LeaveRule,
    reasons: unknown[],
    settled: boolean | undefined,
    note: string | undefined,
  ][] = [
    ["without a reason", "direct", [undefined], undefined, "write 1005"],
    ["with an error", "direct", [new Error("a")], undefined, "write 1011"],
    ["with an error, by the standard", "standard", [new Error("a")], undefined, "write 1005"],
    ["with an error in a handler", "handler", [new Error("a")], undefined, "write 1011"],
    ["in a handler that has not settled", "handler", [undefined], undefined, undefined],
    ["in a handler that resolves", "handler", [undefined], false, "write 1000"],
    ["in a handler that rejects", "handler", [undefined], true, "write 1011"],
    ["with a text in a handler that resolves", "handler", ["a"], false, "write 1005"],
    ["twice in a handler that resolves", "handler", ["a", undefined], false, "write 1005"],
    ["never, in a handler that resolves", "handler", [], false, "write 1000"],
    ["never, in a handler that rejects", "handler", [], true, "write 1011"],
  ];
  for (const [name, rule, reasons, settled, note] of leaves) {
    it(`Closing when a stream is left ${name}`, async () => {
      const all = closingOf({ isIgnored: true, awaited: settled });
      const { closing, notes } = all;
      closing.leaveRule = rule;
      for (const reason of reasons) closing.leave(reason);
      if (settled !== undefined) {
        assert.deepEqual(notes, []);
        assert.equal(closing.handlerSettled(settled), settled);
        assert.deepEqual(
          all.ends.map((
            { clean, closeCode, released, error },
          ) => [clean, closeCode, released, (error as Error).message]),
          [
            [true, 1000, true, "The handler has returned"],
          ],
        );
        assert.equal(closing.handlerSettled(settled), false);
        assert.equal(all.ends.length, 1);
      }
      assert.equal(notes[1], note);
      await later();
      assert.equal(notes[1], note);
    });
  }

  const impatient: [name: string, act: (closing: Closing) => unknown, before: boolean][] = [
    ["the handler has left", (closing) => closing.handlerLeft(), false],
    ["somebody waits for the end", (closing) => closing.closed, false],
    ["somebody has waited for the end", (closing) => closing.closed, true],
  ];
  for (const [name, act, before] of impatient) {
    it(`Closing does not wait for the handler if ${name}`, async () => {
      const { closing, notes } = closingOf({ isIgnored: true });
      closing.leaveRule = "handler";
      if (before) act(closing);
      assert.deepEqual(notes, []);
      closing.leave(undefined);
      if (!before) {
        await later();
        assert.deepEqual(notes, []);
        act(closing);
      }
      assert.deepEqual(notes, [], "the handler may go on in this turn");
      await later();
      assert.deepEqual(notes, ["cancel", "write 1000", "flush"]);
      if (closing.leaveRule as LeaveRule !== "direct") return;
      const { closing: other, notes: direct } = closingOf({ isIgnored: true });
      other.leaveRule = "handler";
      other.handlerLeft();
      await later();
      assert.deepEqual(direct, []);
      other.leave(undefined);
      assert.equal(direct[1], "write 1005");
    });
  }

  it("Closing lets a write reject when the connection has ended, if that has interrupted it", async () => {
    const fault = new Error("fault");
    const all = closingOf();
    assert.equal(await rejection(all.closing.cutOff(fault)), fault);
    await closes(all);
    const cut = all.closing.cutOff(fault);
    assert.equal(await isPending(cut), true);
    await fails(all);
    assert.equal(await rejection(cut), fault);
  });

  it("finish() closes, and settles as the connection ends", async () => {
    for (const step of [receives, fails]) {
      const all = closingOf();
      const finished = all.closing.finish();
      assert.equal(all.notes[1], "write 1005");
      assert.equal(await isPending(finished), true);
      await step(all);
      if (step === fails) return assert.equal(await rejection(finished), all.closing.error);
      assert.equal(await isPending(finished), true);
      await lost(all);
      await finished;
    }
  });

  const waits: [name: string, timeout: number, steps: Step[], after: number | undefined][] = [
    ["an own close", 1000, [closes], 1000],
    ["a handshake that began with an own close", 1000, [closes, receives], 1000],
    ["a handshake that the peer began", 1000, [receives], 1000],
    ["a failure", 1000, [fails], 1000],
    ["the end", 1000, [closes, receives, lost], undefined],
    ["an own close without limit", 0, [closes, receives], undefined],
    ["an own close with the shortest limit", 1, [closes], 4],
  ];
  for (const [name, timeout, steps, after] of waits) {
    it(`Closing gives the transport its time after ${name}`, async () => {
      await inVirtualTime(async (time) => {
        const all = closingOf({ timeout });
        for (const step of steps) await step(all);
        await time.advance((after ?? 10_000) - 1);
        assert.ok(!all.notes.includes("destroy"));
        await time.advance(1);
        assert.equal(all.notes.includes("destroy"), after !== undefined);
      });
    });
  }
});

describe("checkCloseInfo", () => {
  it("refuses a member that does not exist", () => {
    const info = { code: 1000 } as CloseInfo;
    assert.throws(() => checkCloseInfo(info), { name: "TypeError", message: /closeCode/ });
  });
});
