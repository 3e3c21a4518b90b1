import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  basicAuth,
  type BasicAuthOptions,
  connect,
  type Credentials,
  credentialsOf,
  type HandshakeError,
} from "../mod.ts";
import { rejection, urlOf, withServer } from "./support.ts";

const ADA: Credentials = { username: "ada", password: "l:ö\ufeff" };
const BOB: Credentials = { username: "bob", password: "" };

function request(authorization?: string): Request {
  const headers = authorization === undefined ? undefined : { authorization };
  return new Request("http://localhost/", { headers });
}

function basic(text: string): string {
  return `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(text)))}`;
}

describe("basicAuth", () => {
  const cases: [title: string, authorization: string | undefined, allowed: boolean][] = [
    ["the right name and password", basic("ada:l:ö\ufeff"), true],
    ["an empty password", basic("bob:"), true],
    ["a scheme in other letters", basic("bob:").replace("Basic", "bASIC"), true],
    ["no header", undefined, false],
    ["another scheme", "Bearer abc", false],
    ["a wrong password", basic("ada:l:o\ufeff"), false],
    ["a password that begins right", basic("ada:l:"), false],
    ["the password of somebody else", basic("ada:"), false],
    ["a wrong name", basic("eve:"), false],
    ["no colon", basic("bob"), false],
    ["no base64", "Basic !!!", false],
    ["padding in the wrong place", "Basic Ym9=i", false],
    ["no UTF-8", `Basic ${btoa("bob:\xff")}`, false],
  ];
  for (const [title, authorization, allowed] of cases) {
    it(`K112 ${allowed ? "lets in" : "refuses"} ${title}`, async () => {
      const answer = await basicAuth({ credentials: [ADA, BOB] })(request(authorization));
      assert.equal(answer?.status, allowed ? undefined : 401);
      if (allowed) return;
      const challenge = answer!.headers.get("www-authenticate");
      assert.equal(challenge, 'Basic realm="WebSocket", charset="UTF-8"');
    });
  }

  it("asks verify, with the request", async () => {
    const asked: unknown[] = [];
    const auth = basicAuth({
      realm: 'a "b" \\ c',
      verify: async (credentials, { url }) => {
        asked.push([credentials, url]);
        await Promise.resolve();
        return credentials.password === "";
      },
    });
    assert.equal(await auth(request(basic("bob:"))), undefined);
    const refused = await auth(request(basic("bob:x")));
    assert.equal(
      refused!.headers.get("www-authenticate"),
      'Basic realm="a \\"b\\" \\\\ c", charset="UTF-8"',
    );
    assert.deepEqual(asked, [
      [BOB, "http://localhost/"],
      [{ username: "bob", password: "x" }, "http://localhost/"],
    ]);
  });

  const wrong: [title: string, options: unknown, error: unknown][] = [
    ["nothing", undefined, TypeError],
    ["neither", {}, TypeError],
    ["both", { credentials: ADA, verify: () => true }, TypeError],
    ["a verify that is no function", { verify: "x" }, TypeError],
    ["a name that is no string", { credentials: { username: 1, password: "" } }, TypeError],
    ["no password", { credentials: [{ username: "a" }] }, TypeError],
    ["a name with a colon", { credentials: { username: "a:b", password: "" } }, RangeError],
    ["a realm that is no string", { realm: 1, credentials: ADA }, TypeError],
    ["a realm with a line break", { realm: "a\nb", credentials: ADA }, RangeError],
  ];
  for (const [title, options, error] of wrong) {
    it(`throws for ${title}`, () => {
      assert.throws(() => basicAuth(options as BasicAuthOptions), error as typeof TypeError);
    });
  }

  it("K112 guards a server; credentials come from the URL of the client", async () => {
    const names: (string | undefined)[] = [];
    await withServer({ onRequest: basicAuth({ credentials: ADA }) }, async (server) => {
      const url = new URL(urlOf(server));
      const error = await rejection<HandshakeError>(connect(url));
      assert.equal(error.response?.status, 401);
      assert.match(error.response!.headers.get("www-authenticate")!, /^Basic /);
      url.username = ADA.username;
      url.password = encodeURIComponent(ADA.password);
      const ws = await connect(url);
      await ws.close();
      assert.deepEqual(names, ["ada"]);
    }, (ws) => void names.push(credentialsOf(ws.request)?.username));
  });
});
