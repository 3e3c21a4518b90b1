/** The rows about the interface: its members, conversions and exceptions according to Web IDL. */
import {
  assert,
  type Env,
  Peer,
  rejection,
  rest,
  type Row,
  settled,
  type Stream,
  streamTo,
  thrown,
  withStream,
} from "./kit.ts";

/** A stream that does not need to connect. */
function idle(env: Env, url: unknown = "ws://localhost/"): Stream {
  const stream = new env.WebSocketStream(url);
  stream.close();
  ignore(stream);
  return stream;
}

/** Marks the promises as handled, which Chromium does not do. */
function ignore({ opened, closed }: Stream): void {
  for (const promise of [opened, closed]) promise.catch(() => {});
}

type Kind = "TypeError" | "SyntaxError" | "InvalidAccessError";

function throws(kind: Kind, run: () => unknown, what: string): void {
  const error = thrown(run, what);
  assert.equal(error?.name, kind, what);
  assert.ok(
    kind === "TypeError" ? error instanceof TypeError : error instanceof DOMException,
    what,
  );
}

function describe(target: object, name: PropertyKey): PropertyDescriptor {
  const found = Object.getOwnPropertyDescriptor(target, name);
  assert.ok(found, `${String(name)} of its own`);
  return found!;
}

/** Checks that Web IDL's rules hold for a member: on the prototype, enumerable, configurable. */
function checkAttribute(prototype: object, name: string): void {
  const { get, set, enumerable, configurable } = describe(prototype, name);
  assert.deepEqual([enumerable, configurable, set], [true, true, undefined], name);
  assert.equal(get!.name, `get ${name}`);
  assert.equal(get!.length, 0, name);
}

function checkClass(value: { name: string; length: number; prototype: object }, init: {
  name: string;
  length: number;
  attributes: string[];
}): void {
  const { name, length, attributes } = init;
  assert.equal(value.name, name);
  assert.equal(value.length, length, `${name}.length`);
  for (const attribute of attributes) checkAttribute(value.prototype, attribute);
  const tag = describe(value.prototype, Symbol.toStringTag);
  assert.deepEqual([tag.value, tag.writable, tag.enumerable, tag.configurable], [
    name,
    false,
    false,
    true,
  ]);
  assert.equal(describe(value.prototype, "constructor").enumerable, false);
  assert.equal(describe(value, "prototype").writable, false);
}

const URLS: Record<string, string> = {
  "ws://127.0.0.1:1/a b?c": "ws://127.0.0.1:1/a%20b?c",
  "http://127.0.0.1:1": "ws://127.0.0.1:1/",
  "https://127.0.0.1:1": "wss://127.0.0.1:1/",
  "HTTP://127.0.0.1:80/a": "ws://127.0.0.1/a",
  "WS://LOCALHOST:80/": "ws://localhost/",
  "wss://localhost:443": "wss://localhost/",
  " ws://localhost/a/../b ": "ws://localhost/b",
  "ws://localhost/\ud800": "ws://localhost/%EF%BF%BD",
};

const WRONG_URLS = ["ws://a/#", "ws://a/#b", "http://a/#b", "ws://", "ftp://a/"]
  .concat(["data:,", "about:blank", "mailto:a@b", "ws://a:70000/", "ws://[1]/"]);

const WRONG_ARGUMENTS: [name: string, kind: Kind, args: () => unknown[]][] = [
  ["no URL", "TypeError", () => []],
  ["a URL that is a symbol", "TypeError", () => [Symbol("a")]],
  ["options that are a number", "TypeError", () => ["ws://localhost/", 1]],
  ["options that are a string", "TypeError", () => ["ws://localhost/", "a"]],
  ["options that are true", "TypeError", () => ["ws://localhost/", true]],
  ["protocols that are a number", "TypeError", () => ["ws://localhost/", { protocols: 1 }]],
  ["protocols that are null", "TypeError", () => ["ws://localhost/", { protocols: null }]],
  ["protocols that are a string", "TypeError", () => ["ws://localhost/", { protocols: "a" }]],
  ["protocols without an iterator", "TypeError", () => [
    "ws://localhost/",
    { protocols: { length: 1, 0: "a" } },
  ]],
  ["a protocol that is a symbol", "TypeError", () => [
    "ws://localhost/",
    { protocols: [Symbol("a")] },
  ]],
  ["a signal that is none", "TypeError", () => ["ws://localhost/", { signal: {} }]],
  ["a signal that is null", "TypeError", () => ["ws://localhost/", { signal: null }]],
  ["a signal in name only", "TypeError", () => [
    "ws://localhost/",
    { signal: Object.create(AbortSignal.prototype) },
  ]],
  ["repeated protocols", "SyntaxError", () => ["ws://localhost/", { protocols: ["a", "a"] }]],
  ["an empty protocol", "SyntaxError", () => ["ws://localhost/", { protocols: [""] }]],
  ["a protocol with a blank", "SyntaxError", () => ["ws://localhost/", { protocols: ["a b"] }]],
  ["a protocol with a comma", "SyntaxError", () => ["ws://localhost/", { protocols: ["a,b"] }]],
  ["a protocol that is not ASCII", "SyntaxError", () => [
    "ws://localhost/",
    { protocols: ["\u00e4"] },
  ]],
  ["an undefined protocol twice", "SyntaxError", () => [
    "ws://localhost/",
    { protocols: [undefined, undefined] },
  ]],
  ["a wrong URL and wrong options", "TypeError", () => ["ws://a/#", 1]],
  ["a wrong URL and a wrong signal", "TypeError", () => ["ws://a/#", { signal: 1 }]],
  ["a wrong URL and repeated protocols", "SyntaxError", () => [
    "ws://a/#",
    { protocols: ["a", "a"] },
  ]],
];

/** Arguments that `close()` and `new WebSocketError()` do not accept. */
const WRONG_INFO: [name: string, kind: Kind, info: unknown][] = [
  ["a number", "TypeError", 1],
  ["a string", "TypeError", "a"],
  ["true", "TypeError", true],
  ["a code that is a symbol", "TypeError", { closeCode: Symbol("a") }],
  ["a code that is a BigInt", "TypeError", { closeCode: 1000n }],
  ["a reason that is a symbol", "TypeError", { closeCode: 1000, reason: Symbol("a") }],
  ["a wrong code and a reason that is a symbol", "TypeError", {
    closeCode: 1001,
    reason: Symbol("a"),
  }],
  ["a code of null", "InvalidAccessError", { closeCode: null }],
  ...[0, 999, 1001, 1005, 1006, 1011, 2999, 5000, 65535].map(
    (closeCode): [string, Kind, unknown] => [`${closeCode}`, "InvalidAccessError", { closeCode }],
  ),
  ["a wrong code and a long reason", "InvalidAccessError", {
    closeCode: 1001,
    reason: "x".repeat(124),
  }],
  ["a reason of 124 bytes", "SyntaxError", { closeCode: 1000, reason: "x".repeat(124) }],
  ["a reason of 126 bytes of UTF-8 alone", "SyntaxError", { reason: "\u20ac".repeat(42) }],
];

/** Additional values that [EnforceRange] of Web IDL refuses. */
const OUT_OF_RANGE: [name: string, kind: Kind, info: unknown][] = [
  ["a code out of range", "TypeError", { closeCode: 65536 }],
  ["a negative code", "TypeError", { closeCode: -1 }],
  ["a code that is no number", "TypeError", { closeCode: "a" }],
  ["a code that is infinite", "TypeError", { closeCode: Infinity }],
];
const NOT_ENFORCED = { native: "Chromium converts the code without [EnforceRange]" };

/** A dictionary that records the order in which its members are read. */
function noting(notes: string[], members: Record<string, unknown>, prefix = ""): object {
  const dictionary = {};
  for (const [name, value] of Object.entries(members)) {
    const get = () => {
      notes.push(prefix + name);
      return value;
    };
    Object.defineProperty(dictionary, name, { get, enumerable: true });
  }
  return dictionary;
}

/** A sequence that records how it is read. */
function sequence(notes: string[], items: unknown[]): object {
  let next = 0;
  const iterator = {
    get next() {
      notes.push("next");
      return () => {
        notes.push("call");
        return next < items.length ? { done: false, value: items[next++] } : { done: true };
      };
    },
    get return() {
      notes.push("return");
      return () => ({});
    },
  };
  return {
    get [Symbol.iterator]() {
      notes.push("iterator");
      return () => iterator;
    },
  };
}

/** A value that converts to a string, and records when. */
function text(notes: string[], name: string, value: string): object {
  return {
    toString() {
      notes.push(name);
      return value;
    },
  };
}

/** The getter of a property. The caller sets `this`. */
function getterOf(value: { prototype: object }, name: string): (this: unknown) => unknown {
  return describe(value.prototype, name).get!;
}

function refusedByClose(row: [name: string, kind: Kind, info: unknown]): Row {
  const [name, kind, info] = row;
  return {
    title: `close() arguments: ${name} throws a ${kind}, and it stays open`,
    except: OUT_OF_RANGE.includes(row) ? NOT_ENFORCED : undefined,
    run: (env) =>
      withStream(env, async ({ stream, writable, peer }) => {
        throws(kind, () => stream.close(info as object), name);
        await writable.getWriter().write("a");
        assert.equal((await peer.next()).data, "a");
      }),
  };
}

function construct(env: Env, args: unknown[]): Stream {
  return new env.WebSocketStream(...args);
}

export const INTERFACE_ROWS: Row[] = [
  {
    title: "interface: WebSocketStream has its name, length, tag and members as Web IDL says",
    run({ WebSocketStream }) {
      const attributes = ["url", "opened", "closed"];
      checkClass(WebSocketStream, { name: "WebSocketStream", length: 1, attributes });
      const close = describe(WebSocketStream.prototype, "close");
      assert.deepEqual([close.enumerable, close.configurable, close.writable], [true, true, true]);
      assert.deepEqual([close.value.name, close.value.length], ["close", 0]);
    },
  },
  {
    title: "interface: a WebSocketStream has no properties of its own, and its tag",
    run(env) {
      const stream = idle(env);
      assert.deepEqual(Reflect.ownKeys(stream), []);
      assert.equal(String(stream), "[object WebSocketStream]");
      const names = [];
      for (const name in stream) names.push(name);
      assert.deepEqual(names.sort(), ["close", "closed", "opened", "url"]);
      assert.equal(stream.opened, stream.opened);
      assert.equal(stream.closed, stream.closed);
      assert.ok(stream.opened instanceof Promise);
      assert.equal(stream.close(), undefined);
    },
  },
  {
    title: "interface: WebSocketStream is not to be called",
    run({ WebSocketStream }) {
      const call = WebSocketStream as unknown as (url: string) => unknown;
      throws("TypeError", () => call("ws://localhost/"), "called without new");
    },
  },
  {
    title: "interface: the members of WebSocketStream refuse another this",
    async run({ WebSocketStream, WebSocketError }) {
      for (const other of [{}, WebSocketStream.prototype, undefined, new WebSocketError()]) {
        throws("TypeError", () => getterOf(WebSocketStream, "url").call(other), "url");
        // Web IDL: an attribute or operation whose type is a promise rejects instead of throwing.
        for (const name of ["opened", "closed"]) {
          const error = await rejection(
            getterOf(WebSocketStream, name).call(other) as Promise<unknown>,
          );
          assert.ok(error instanceof TypeError, name);
        }
        const { close } = WebSocketStream.prototype as Stream;
        throws("TypeError", () => close.call(other as Stream), "close");
      }
    },
  },
  {
    title: "interface: it can be extended",
    run({ WebSocketStream }) {
      class Extended extends WebSocketStream {
        more = 1;
      }
      const stream = new Extended("ws://localhost/");
      stream.close();
      ignore(stream);
      assert.ok(stream instanceof WebSocketStream);
      assert.deepEqual([stream.more, stream.url], [1, "ws://localhost/"]);
      assert.equal(Object.getPrototypeOf(stream), Extended.prototype);
    },
  },
  {
    title: "URL: http and https are taken as ws and wss; url is the serialised URL",
    run(env) {
      for (const [url, serialised] of Object.entries(URLS)) {
        assert.equal(idle(env, url).url, serialised);
      }
      assert.equal(idle(env, new URL("http://localhost/a")).url, "ws://localhost/a");
    },
  },
  {
    title: "URL: another scheme, a fragment and an invalid URL throw a SyntaxError",
    run({ WebSocketStream }) {
      for (const url of WRONG_URLS) {
        throws("SyntaxError", () => new WebSocketStream(url), JSON.stringify(url));
      }
    },
  },
  ...WRONG_ARGUMENTS.map(([name, kind, args]): Row => ({
    title: `constructor arguments: ${name} throws a ${kind}`,
    run: (env) => throws(kind, () => construct(env, args()), name),
  })),
  {
    title: "constructor arguments: protocols repeated but for case throw a SyntaxError",
    except: { native: "Chromium compares protocols with case" },
    run: (env) =>
      throws(
        "SyntaxError",
        () => construct(env, ["ws://localhost/", { protocols: ["a", "A"] }]),
        "",
      ),
  },
  {
    title: "constructor arguments: null, a function and an empty object are options",
    async run(env) {
      for (const options of [null, undefined, () => {}, {}]) {
        const stream = construct(env, ["ws://127.0.0.1:1/", options]);
        ignore(stream);
        await rejection(stream.closed);
      }
    },
  },
  {
    title: "constructor arguments: converted in the order of Web IDL, each read once",
    run(env) {
      const notes: string[] = [];
      const options = noting(notes, {
        signal: undefined,
        protocols: [text(notes, "first", "a"), text(notes, "second", "b")],
      });
      const stream = construct(env, [text(notes, "url", "ws://localhost/"), options]);
      stream.close();
      ignore(stream);
      assert.deepEqual(notes, ["url", "protocols", "first", "second", "signal"]);
    },
  },
  {
    title: "constructor arguments: E6 protocols are iterated once, and return() is not called",
    run(env) {
      for (const given of [["a", "b"], ["a", Symbol("b")], ["a", "a"], ["a", "b c"]]) {
        const notes: string[] = [];
        const protocols = sequence(notes, given);
        try {
          const stream = construct(env, ["ws://localhost/", { protocols }]);
          stream.close();
          ignore(stream);
        } catch {
          // Other rows check the error.
        }
        const read = typeof given[1] === "symbol" ? 2 : 3;
        assert.deepEqual(notes, ["iterator", "next", ...Array(read).fill("call")]);
      }
    },
  },
  {
    title: "constructor arguments: E6 an iterator that is none throws a TypeError",
    run({ WebSocketStream }) {
      const iterators: unknown[] = [
        undefined,
        5,
        {},
        { next: 5 },
        { next: () => 5 },
        { next: () => undefined },
      ];
      for (const iterator of iterators) {
        const protocols = { [Symbol.iterator]: () => iterator };
        throws("TypeError", () => new WebSocketStream("ws://localhost/", { protocols }), "");
      }
      throws("TypeError", () =>
        new WebSocketStream("ws://localhost/", {
          protocols: { [Symbol.iterator]: 5 },
        }), "");
    },
  },
  {
    title: "constructor arguments: E6 what an iterator throws is thrown",
    run({ WebSocketStream }) {
      const error = new RangeError("thrown");
      const raise = () => {
        throw error;
      };
      const wrong: object[] = [
        {
          get [Symbol.iterator]() {
            return raise();
          },
        },
        { [Symbol.iterator]: raise },
        {
          [Symbol.iterator]: () => ({
            get next() {
              return raise();
            },
          }),
        },
        { [Symbol.iterator]: () => ({ next: raise }) },
        {
          [Symbol.iterator]: () => ({
            next: () => ({
              get done() {
                return raise();
              },
            }),
          }),
        },
        [{ toString: raise }],
      ];
      for (const protocols of wrong) {
        const caught = thrown(() => new WebSocketStream("ws://localhost/", { protocols }));
        assert.equal(caught as unknown, error);
      }
    },
  },
  {
    title: "constructor arguments: members are inherited, protocols any iterable",
    async run(env) {
      const peer = new Peer(env, "b");
      const inherited = Object.create({ protocols: new Set(["a", "b"]) });
      const stream = construct(env, [peer.url, Object.assign(inherited, env.options)]);
      assert.equal((await stream.opened).protocol, "b");
      const signal = Object.create({ signal: AbortSignal.abort() });
      assert.equal((await rejection(construct(env, [peer.url, signal]).opened)).name, "AbortError");
      await peer.do(["destroy"]);
    },
  },
  {
    title: "opened: the streams, the protocol and the extensions, as a plain object",
    async run(env) {
      const peer = new Peer(env, "b");
      const stream = streamTo(env, peer, { protocols: ["a", "b"] });
      const info = await stream.opened;
      for (const name of ["readable", "writable", "extensions", "protocol"]) {
        const { enumerable, configurable, writable } = describe(info, name);
        assert.deepEqual([enumerable, configurable, writable], [true, true, true], name);
      }
      assert.equal(Object.getPrototypeOf(info), Object.prototype);
      assert.deepEqual([info.protocol, info.extensions], ["b", ""]);
      assert.ok(info.readable instanceof ReadableStream);
      assert.ok(info.writable instanceof WritableStream);
      await peer.do(["destroy"]);
    },
  },
  ...[...WRONG_INFO, ...OUT_OF_RANGE].map((row): Row => refusedByClose(row)),
  {
    title: "close() arguments: refused during the handshake too",
    async run(env) {
      const peer = new Peer(env, "hang");
      const stream = streamTo(env, peer);
      try {
        for (const [name, kind, info] of WRONG_INFO) {
          throws(kind, () => stream.close(info as object), name);
        }
        assert.equal(await settled(stream.opened, peer), "pending");
      } finally {
        stream.close();
      }
      await rejection(stream.closed);
    },
  },
  {
    title: "close() arguments: converted in the order of Web IDL, each read once",
    run: (env) =>
      withStream(env, ({ stream }) => {
        const notes: string[] = [];
        const closeCode = {
          valueOf() {
            notes.push("code");
            return 4000;
          },
        };
        stream.close(noting(notes, { reason: text(notes, "text", "r"), closeCode }));
        assert.deepEqual(notes, ["closeCode", "code", "reason", "text"]);
      }),
  },
  {
    title: "WebSocketError: it has its name, length, tag and members as Web IDL says",
    run({ WebSocketError }) {
      const attributes = ["closeCode", "reason"];
      checkClass(WebSocketError, { name: "WebSocketError", length: 0, attributes });
      assert.equal(Object.getPrototypeOf(WebSocketError), DOMException);
      assert.equal(Object.getPrototypeOf(WebSocketError.prototype), DOMException.prototype);
      const call = WebSocketError as unknown as () => unknown;
      throws("TypeError", () => call(), "called without new");
      for (const name of attributes) {
        for (const other of [{}, WebSocketError.prototype, new DOMException()]) {
          throws("TypeError", () => getterOf(WebSocketError, name).call(other), name);
        }
      }
    },
  },
  {
    title: "WebSocketError: name, code, closeCode and reason by default",
    run({ WebSocketError }) {
      for (const args of [[], [undefined], ["", undefined], ["", null], ["", {}]]) {
        const error = new WebSocketError(...args);
        const { name, message, code, closeCode, reason } = error;
        assert.deepEqual([name, message, code, closeCode, reason], [
          "WebSocketError",
          "",
          0,
          null,
          "",
        ]);
        assert.ok(error instanceof DOMException && error instanceof Error);
      }
    },
  },
  {
    title: "WebSocketError: it has a stack, as a DOMException has",
    except: { native: "Chromium's WebSocketError has none" },
    run: ({ WebSocketError }) => assert.equal(typeof new WebSocketError().stack, "string"),
  },
  {
    title: "WebSocketError: it carries message, code and reason; a reason alone has 1000",
    run({ WebSocketError }) {
      const of = (init: unknown) => {
        const { closeCode, reason } = new WebSocketError("m", init);
        return [closeCode, reason];
      };
      assert.equal(new WebSocketError("m").message, "m");
      assert.equal(new WebSocketError(1).message, "1");
      assert.deepEqual(of({ closeCode: 1000 }), [1000, ""]);
      assert.deepEqual(of({ closeCode: 3000, reason: "r" }), [3000, "r"]);
      assert.deepEqual(of({ closeCode: "4999" }), [4999, ""]);
      assert.deepEqual(of({ closeCode: 1000.9 }), [1000, ""]);
      assert.deepEqual(of({ reason: "r" }), [1000, "r"]);
      assert.deepEqual(of({ reason: "" }), [null, ""]);
      assert.deepEqual(of({ reason: "\ud800" }), [1000, "\ufffd"]);
      assert.deepEqual(of({ reason: null }), [1000, "null"]);
      assert.deepEqual(of({ closeCode: 1000, reason: "x".repeat(123) }), [1000, "x".repeat(123)]);
    },
  },
  {
    title: "WebSocketError: what close() refuses is refused alike, behind a wrong message",
    run({ WebSocketError }) {
      for (const [name, kind, info] of WRONG_INFO) {
        throws(kind, () => new WebSocketError("", info), name);
      }
      throws("TypeError", () => new WebSocketError(Symbol("a")), "a message that is a symbol");
      const notes: string[] = [];
      new WebSocketError(text(notes, "message", "m"), noting(notes, { closeCode: 1000 }));
      assert.deepEqual(notes, ["message", "closeCode"]);
    },
  },
  {
    title: "WebSocketError: a code out of range throws a TypeError",
    except: NOT_ENFORCED,
    run({ WebSocketError }) {
      for (const [name, kind, info] of OUT_OF_RANGE) {
        throws(kind, () => new WebSocketError("", info), name);
      }
    },
  },
  {
    title: "never: promises that nobody looks at cause an unhandled rejection",
    except: { native: "Chromium does not mark them as handled" },
    async run(env) {
      // The runner of the rows fails them for an unhandled rejection.
      const start = (answer: string, options: object = {}) => {
        const peer = new Peer(env, answer);
        return { peer, stream: construct(env, [peer.url, { ...env.options, ...options }]) };
      };
      start("403");
      start("", { signal: AbortSignal.abort() });
      start("hang").stream.close();
      construct(env, ["ws://127.0.0.1:1/"]);
      const { peer, stream } = start("");
      await stream.opened;
      await peer.do(["destroy"]);
      await rest(peer);
    },
  },
];
