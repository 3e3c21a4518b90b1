/** Opening handshakes in each role and with each peer: agreements and refusals. */
import assert from "node:assert/strict";
import type { HandshakeError } from "../../mod.ts";
import type { Role } from "../../lib/core/mod.ts";
import { concat, utf8 } from "../bytes.ts";
import { collect, rejection } from "../support.ts";
import type { PairOptions } from "./pair.ts";
import { base64, type Fields, type Refused } from "./peer_process.ts";
import type { Ability } from "./peers.ts";
import type { Ends, Failure, Scenario } from "./row.ts";

/** The values of a header field, as they were sent. */
function valuesOf(headers: Fields, name: string): string[] {
  return headers.filter(([field]) => field.toLowerCase() === name).map(([, value]) => value);
}

/** The header fields that the peer sent to us. */
function theirFields({ ours, role }: Ends): Fields {
  return role === "client" ? ours.rawHeaders.response : ours.rawHeaders.request;
}

/** The options of the two ends for these subprotocols, whichever end is ours. */
function protocols(offered: string[], supported: string[]): (role: Role) => PairOptions {
  return (role) => {
    const [ours, theirs] = role === "client" ? [offered, supported] : [supported, offered];
    return { ours: { protocols: ours }, theirs: { protocols: theirs } };
  };
}

const SUBPROTOCOLS: [title: string, offered: string[], supported: string[], chosen: string][] = [
  ["the one in common is agreed on", ["a", "b"], ["b", "c"], "b"],
  ["none is agreed on where none was offered", [], ["b", "c"], ""],
  ["none is agreed on where none is in common", ["a"], ["b", "c"], ""],
];

/** A head of about ten thousand bytes. */
const MANY_FIELDS: Fields = Array.from({ length: 90 }, (_, i) => [`X-${i}`, "*".repeat(100)]);

const TARGET = "/a%20b/c?d=e&f";
const AUTHORIZATION = `Basic ${base64("user:secret")}`;

type Agreement = Omit<Scenario, "kind">;

const AGREED: readonly Agreement[] = [
  ...SUBPROTOCOLS.map(([title, offered, supported, chosen]): Agreement => ({
    title: `subprotocols: ${title}`,
    needs: offered.length > 0 && chosen === "" ? ["doWithoutProtocol"] : [],
    options: protocols(offered, supported),
    run({ ours, told }) {
      assert.deepEqual([ours.protocol, told.protocol], [chosen, chosen]);
      return Promise.resolve();
    },
  })),
  {
    title: "more header fields, both ways",
    partly: ["repeatFields"],
    needs: ["sendFields", "tellFields"],
    options: () => ({
      ours: { headers: [["X-Ours", "a, b"], ["X-Empty", ""]] },
      theirs: { headers: [["X-Theirs", "c"], ["X-Theirs", "d"]] },
    }),
    run(ends) {
      assert.deepEqual(valuesOf(ends.told.headers, "x-ours"), ["a, b"]);
      assert.deepEqual(valuesOf(ends.told.headers, "x-empty"), [""]);
      const theirs = valuesOf(theirFields(ends), "x-theirs");
      if (ends.can("repeatFields")) assert.deepEqual(theirs, ["c", "d"]);
      else assert.deepEqual(theirs.join().split(/,\s*/), ["c", "d"]);
      return Promise.resolve();
    },
  },
  {
    title: "large heads, both ways",
    needs: ["sendFields", "tellFields"],
    options: () => ({ ours: { headers: MANY_FIELDS }, theirs: { headers: MANY_FIELDS } }),
    run(ends) {
      for (const [name, value] of MANY_FIELDS) {
        assert.deepEqual(valuesOf(ends.told.headers, name.toLowerCase()), [value]);
        assert.deepEqual(valuesOf(theirFields(ends), name.toLowerCase()), [value]);
      }
      return Promise.resolve();
    },
  },
  {
    title: "the target arrives as it is",
    quick: true,
    needs: (role) => role === "client" ? ["tellTarget"] : [],
    options: () => ({ target: TARGET }),
    run({ ours, told, role }) {
      const url = new URL(ours.request.url);
      assert.equal(role === "client" ? told.target : url.pathname + url.search, TARGET);
      return Promise.resolve();
    },
  },
  {
    title: "compression that only they have is not agreed on",
    needs: ["compress"],
    options: () => ({
      ours: { compression: false },
      theirs: { compression: true, echo: true },
    }),
    async run({ ours }) {
      assert.equal(ours.extensions, "");
      const message = "compressible ".repeat(100);
      await ours.send(message);
      assert.equal(await ours.receive(), message);
    },
  },
  {
    title: "the user of our URL is Basic authentication",
    needs: ["tellFields"],
    roles: ["client"],
    options: () => ({ userInfo: "user:secret@" }),
    run({ told }) {
      assert.deepEqual(valuesOf(told.headers, "authorization"), [AUTHORIZATION]);
      return Promise.resolve();
    },
  },
  {
    title: "the user of our URL is let in",
    roles: ["client"],
    needs: ["askUser"],
    options: () => ({ userInfo: "user:secret@", theirs: { credentials: ["user", "secret"] } }),
    async run({ ours }) {
      assert.ok(await ours.ping() >= 0);
    },
  },
  {
    title: "the user of their URL is Basic authentication",
    roles: ["server"],
    needs: ["sendUser"],
    options: () => ({ userInfo: "user:secret@" }),
    run({ ours }) {
      assert.equal(ours.request.headers.get("authorization"), AUTHORIZATION);
      return Promise.resolve();
    },
  },
];

const REFUSALS: readonly Refused[] = [
  { status: 403, headers: [["X-Reason", "not you"]], body: "Forbidden to you" },
  { status: 401, headers: [["WWW-Authenticate", 'Basic realm="a, b"']], body: "" },
  { status: 503, headers: [["Retry-After", "120"], ["X-A", "b"]], body: "Later. ".repeat(2000) },
];

/** What the peer needs for a refusal. */
function refusing(role: Role, { body }: Refused): readonly Ability[] {
  if (role === "server") return ["tellRefusal"];
  return body === "" ? ["refuse", "refuseEmpty"] : ["refuse"];
}

/** The refusal that a client received, from our server or from the peer's. */
async function refusalOf({ ours, theirs }: Parameters<Failure["run"]>[0], role: Role) {
  if (role === "server") return await theirs.next("refused");
  const { code, response } = await rejection<HandshakeError>(ours);
  assert.equal(code, "status");
  const { status, rawHeaders: headers, body } = response!;
  return { status, headers, body: new TextDecoder().decode(concat(await collect(body))) };
}

type Refusal = Omit<Failure, "kind" | "fails">;

const REFUSED: readonly Refusal[] = [
  ...REFUSALS.map((refusal): Refusal => ({
    title: `a refusal with ${refusal.status} arrives whole`,
    quick: refusal.status === 403,
    needs: (role) => refusing(role, refusal),
    partly: ["tellRefusalFields", "tellRefusalBody"],
    options: (role) =>
      role === "client" ? { theirs: { refuse: refusal } } : {
        ours: { onRequest: () => toResponse(refusal) },
      },
    async run(opening, role) {
      const { status, headers, body } = await refusalOf(opening, role);
      assert.equal(status, refusal.status);
      const tells = (ability: Ability) => role === "client" || opening.can(ability);
      for (const [name, value] of tells("tellRefusalFields") ? refusal.headers : []) {
        assert.deepEqual(valuesOf(headers, name.toLowerCase()), [value]);
      }
      if (tells("tellRefusalBody")) assert.equal(body, refusal.body);
    },
  })),
  {
    title: "a user whom they do not know is refused",
    roles: ["client"],
    needs: ["askUser"],
    options: () => ({ userInfo: "user:wrong@", theirs: { credentials: ["user", "secret"] } }),
    async run(opening, role) {
      const { status, headers } = await refusalOf(opening, role);
      assert.equal(status, 401);
      assert.match(valuesOf(headers, "www-authenticate")[0], /^Basic realm="interop"/);
    },
  },
  {
    title: "an Origin that we do not allow is refused",
    roles: ["server"],
    needs: ["sendFields", "tellRefusal"],
    options: () => ({
      ours: { origins: ["https://a.example"] },
      theirs: { headers: [["Origin", "https://b.example"]] },
    }),
    async run(opening, role) {
      assert.equal((await refusalOf(opening, role)).status, 403);
    },
  },
  {
    title: "a client of theirs refuses a server without its subprotocol",
    roles: ["server"],
    needs: ["hangUp"],
    unless: "doWithoutProtocol",
    options: protocols(["a"], ["b", "c"]),
    async run({ theirs, ours }) {
      await theirs.next("failed");
      await rejection((await ours).closed);
    },
  },
  {
    title: "a head that is too large for us is refused",
    needs: (role) => [
      "sendFields",
      "largeHeads",
      ...(role === "server" ? ["tellRefusal" as const] : []),
    ],
    options: () => ({ theirs: { headers: [...MANY_FIELDS, ...MANY_FIELDS] } }),
    async run(opening, role) {
      if (role === "server") return assert.equal((await refusalOf(opening, role)).status, 431);
      assert.equal((await rejection<HandshakeError>(opening.ours)).code, "head-too-large");
    },
  },
];

/** Handshakes that succeed. */
export const AGREEMENTS: readonly Scenario[] = AGREED.map((row) => ({ kind: "opening", ...row }));

/** Handshakes that fail. */
export const FAILURES: readonly Failure[] = REFUSED.map((row) => ({
  kind: "opening",
  fails: true,
  ...row,
}));

/** The response that `onRequest` returns. It has a length, because some clients cannot read chunks. */
function toResponse({ status, headers, body }: Refused): Response {
  const all = new Headers(headers.map(([name, value]): [string, string] => [name, value]));
  all.set("Content-Length", String(utf8(body).length));
  return new Response(body, { status, headers: all });
}
