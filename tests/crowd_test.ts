/** Recipients of a broadcast whose transports are written to one after the other. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { broadcast } from "../mod.ts";
import type { Recipient } from "../lib/connection/broadcast.ts";
import { Sender, type SenderHost } from "../lib/connection/sender.ts";
import { defineSending } from "../lib/connection/sending.ts";
import { Protocol } from "../lib/core/protocol.ts";
import { nextTurn } from "../lib/timers.ts";
import type { Transport } from "../lib/transport.ts";
import { concat } from "./bytes.ts";
import { fc } from "./property.ts";

/** A connection whose transport runs code within `write()`, as a duplex in the same process may. */
class Member {
  readonly state = "open";
  bufferedAmount = 0;
  onWrite: () => void = () => {};
  readonly written: Uint8Array[] = [];
  readonly cuts: string[] = [];
  readonly sender: Sender;

  constructor() {
    const host: Partial<SenderHost> = {
      canSend: true,
      canWrite: true,
      cut: (message) => this.cuts.push(message),
    };
    const protocol = new Protocol("server", {}, []);
    this.sender = new Sender(protocol, this as unknown as Transport, host as SenderHost, {});
  }

  static {
    defineSending(Member.prototype, ({ sender }) => sender);
  }

  write(parts: readonly Uint8Array[]): void {
    for (const part of parts) this.written.push(part.slice());
    this.onWrite();
  }

  /** The messages that were written, all of them short. */
  get got(): string[] {
    const bytes = concat(this.written);
    const texts: string[] = [];
    for (let at = 0; at < bytes.length;) {
      const end = at + 2 + bytes[at + 1];
      texts.push(new TextDecoder().decode(bytes.subarray(at + 2, end)));
      at = end;
    }
    return texts;
  }
}

/** Waits until what was sent in this turn has left. */
const turn = () => new Promise<void>((resolve) => nextTurn(resolve));

/** Waits until what was sent because of this turn has left too. */
async function rest(): Promise<void> {
  for (let i = 0; i < 5; i++) await turn();
}

const asRecipients = (members: readonly Member[]) => members as unknown as Recipient[];

/** Returns members that are a crowd, which has taken the message "first". */
async function crowdOf(count: number): Promise<Member[]> {
  const members = Array.from({ length: count }, () => new Member());
  broadcast(asRecipients(members), "first");
  await turn();
  assert.notEqual(members[0].sender.crowd, undefined);
  assert.ok(members.every(({ got }) => got.join() === "first"));
  return members;
}

describe("A crowd", () => {
  it("lets a member wait while its transport holds a byte, and not if the byte has left", async () => {
    const [held, drained, last] = await crowdOf(3);
    held.onWrite = () => held.bufferedAmount = 1;
    drained.onWrite = () => drained.bufferedAmount = 1;
    last.onWrite = () => {
      drained.bufferedAmount = 0;
      drained.sender.drained();
    };
    broadcast(asRecipients([held, drained, last]), "second");
    await rest();
    drained.onWrite = held.onWrite = () => {};
    for (const member of [held, drained]) void member.sender.send("third");
    await rest();
    assert.deepEqual(held.got, ["first", "second"]);
    assert.deepEqual(drained.got, ["first", "second", "third"]);
    held.bufferedAmount = 0;
    held.sender.drained();
    assert.deepEqual(held.got, ["first", "second", "third"]);
  });

  it("sends a message in the order of the calls, also if a transport runs code that sends", async () => {
    const acts: [string, (members: Member[]) => void, got: string[][]][] = [
      [
        "a member that was not reached sends",
        ([, , c]) => {
          void c.sender.send("own");
          c.sender.flush();
        },
        [["a"], ["a"], ["a", "own"]],
      ],
      [
        "a member that was reached sends",
        ([a]) => {
          void a.sender.send("own");
          a.sender.flush();
        },
        [["a", "own"], ["a"], ["a"]],
      ],
      [
        "a broadcast to all, which leaves at once",
        (members) => {
          broadcast(asRecipients(members), "b");
          for (const { sender } of members) sender.flush();
        },
        [["a", "b"], ["a", "b"], ["a", "b"]],
      ],
      [
        "a broadcast to all, after which a member that was not reached sends",
        (members) => {
          broadcast(asRecipients(members), "b");
          void members[2].sender.send("own");
        },
        [["a", "b"], ["a", "b"], ["a", "b", "own"]],
      ],
      [
        "a broadcast to others",
        ([, b, c]) => {
          broadcast(asRecipients([b, c]), "b");
          c.sender.flush();
        },
        [["a"], ["a", "b"], ["a", "b"]],
      ],
      [
        "a member that was not reached begins a message of items, none of which comes",
        ([, , c]) => {
          void c.sender.send(new ReadableStream<string>());
        },
        [["a"], ["a"], ["a"]],
      ],
    ];
    for (const [name, act, got] of acts) {
      const members = await crowdOf(3);
      let isDone = false;
      members[1].onWrite = () => {
        if (isDone) return;
        isDone = true;
        act(members);
      };
      broadcast(asRecipients(members), "a");
      await rest();
      assert.deepEqual(members.map((member) => member.got.slice(1)), got, name);
    }
  });

  it("goes on without a member whose transport throws or is full", async () => {
    const members = await crowdOf(4);
    const [a, b, c, d] = members;
    a.onWrite = () => {
      throw new Error("broken");
    };
    c.onWrite = () => c.bufferedAmount = 3;
    broadcast(asRecipients(members), "a");
    await turn();
    assert.deepEqual(members.map(({ cuts }) => cuts), [["The transport threw"], [], [], []]);
    for (const { got } of [b, c, d]) assert.deepEqual(got, ["first", "a"]);
    assert.equal(b.sender.crowd, undefined);
    c.onWrite = () => {};
    void c.sender.send("own");
    await rest();
    assert.deepEqual(c.got, ["first", "a"], "it is full");
    c.bufferedAmount = 0;
    c.sender.drained();
    assert.deepEqual(c.got, ["first", "a", "own"]);
    const { bytesSent, messagesSent } = c.sender;
    assert.deepEqual([bytesSent, messagesSent], [7 + 3 + 5, 3]);
  });

  it("goes on without a member whose transport does not say what waits", async () => {
    const members = await crowdOf(3);
    const [{ cuts }, b, c] = members;
    Object.defineProperty(members[0], "bufferedAmount", {
      get() {
        throw new Error("broken");
      },
    });
    broadcast(asRecipients(members), "a");
    await turn();
    broadcast(asRecipients([b, c]), "b");
    await turn();
    assert.deepEqual(cuts, ["The transport threw"]);
    for (const { got } of [b, c]) assert.deepEqual(got, ["first", "a", "b"]);
  });

  it("sends what waits when a member has left", async () => {
    const members = await crowdOf(3);
    broadcast(asRecipients(members), "a");
    void members[1].sender.send("own");
    await turn();
    const got = members.map(({ got }) => got.slice(1));
    assert.deepEqual(got, [["a"], ["a", "own"], ["a"]]);
  });

  it("is not kept by its members when one has left", async () => {
    const members = await crowdOf(3);
    const [a, b, c] = members;
    const { range } = a.sender.crowd!;
    c.sender.leaveCrowd();
    assert.ok(range.crowd === undefined);
    broadcast(asRecipients(members), "a");
    await turn();
    for (const leaver of [a, c]) {
      const { range } = b.sender.crowd!;
      b.onWrite = () => leaver.sender.leaveCrowd();
      broadcast(asRecipients(members), "b");
      await turn();
      assert.ok(range.crowd === undefined);
      b.onWrite = () => {};
      broadcast(asRecipients(members), "c");
      await turn();
    }
    for (const { got } of members) assert.deepEqual(got, ["first", "a", "b", "c", "b", "c"]);
  });

  it("may have many members that are full at once", async () => {
    const members = await crowdOf(10_000);
    for (const member of members) member.onWrite = () => member.bufferedAmount = 1;
    broadcast(asRecipients(members), "a");
    await turn();
    assert.ok(members.every(({ sender }) => sender.crowd === undefined));
    assert.ok(members.every(({ got }) => got.join() === "first,a"));
  });

  it("has the same result as connections that are written to one by one", async () => {
    const index = fc.nat(3);
    const all: number[] = [0, 1, 2, 3];
    const some = fc.uniqueArray(index, { minLength: 1 });
    const act = fc.oneof(
      fc.record({ to: fc.oneof(fc.constant(all), some) }),
      fc.record({ send: index, flush: fc.boolean() }),
    );
    const step = fc.oneof(act, act, fc.constant("turn" as const));
    const hooks = fc.array(fc.tuple(fc.nat(30), act), { maxLength: 5 });
    await fc.assert(fc.asyncProperty(fc.array(step), hooks, async (steps, hooks) => {
      const members = all.map(() => new Member());
      const expected: string[][] = members.map(() => []);
      let count = 0;
      const run = (act: { to: number[] } | { send: number; flush: boolean }) => {
        const message = `${count++}`;
        if ("to" in act) {
          for (const i of act.to) expected[i].push(message);
          broadcast(asRecipients(act.to.map((i) => members[i])), message);
          return;
        }
        expected[act.send].push(message);
        void members[act.send].sender.send(message);
        if (act.flush) members[act.send].sender.flush();
      };
      let writes = 0;
      for (const member of members) {
        member.onWrite = () => {
          const at = writes++;
          for (const [when, act] of hooks) if (when === at) run(act);
        };
      }
      for (const step of steps) {
        if (step === "turn") await turn();
        else run(step);
      }
      await rest();
      assert.deepEqual(members.map(({ got }) => got), expected);
      for (const [i, { sender, written }] of members.entries()) {
        assert.equal(sender.messagesSent, expected[i].length);
        assert.equal(sender.bytesSent, concat(written).length);
      }
    }));
  });
});
