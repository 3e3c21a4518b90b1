import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { parseWebSocketUrl, type RequestHead, type WebSocketUrl } from "../lib/core/mod.ts";
import { pathOfTarget, requestUrl } from "../lib/core/url.ts";

const PLAIN: WebSocketUrl = {
  href: "ws://example.com/",
  secure: false,
  hostname: "example.com",
  port: 80,
  host: "example.com",
  resourceName: "/",
  username: "",
  password: "",
};
const SECURE = { secure: true, port: 443 };

/** URLs and their parts, without those that are equal to PLAIN. */
const VALID: readonly [url: string, Partial<WebSocketUrl> & { href: string }][] = [
  ["ws://example.com", { href: "ws://example.com/" }],
  ["WS://EXAMPLE.com", { href: "ws://example.com/" }],
  ["http://example.com", { href: "ws://example.com/" }],
  ["ws://example.com:80/", { href: "ws://example.com/" }],
  ["wss://example.com", { href: "wss://example.com/", ...SECURE }],
  ["https://example.com:443", { href: "wss://example.com/", ...SECURE }],
  ["ws://example.com:443", {
    href: "ws://example.com:443/",
    port: 443,
    host: "example.com:443",
  }],
  ["https://example.com:80", {
    href: "wss://example.com:80/",
    secure: true,
    host: "example.com:80",
  }],
  ["http://example.com:8080/a", {
    href: "ws://example.com:8080/a",
    port: 8080,
    host: "example.com:8080",
    resourceName: "/a",
  }],
  ["ws://example.com/a b/%20?q=ä&r", {
    href: "ws://example.com/a%20b/%20?q=%C3%A4&r",
    resourceName: "/a%20b/%20?q=%C3%A4&r",
  }],
  ["ws://example.com?", { href: "ws://example.com/?" }],
  ["ws://example.com/?%23", { href: "ws://example.com/?%23", resourceName: "/?%23" }],
  ["ws://[::1]:9/", {
    href: "ws://[::1]:9/",
    hostname: "::1",
    port: 9,
    host: "[::1]:9",
  }],
  ["wss://[2001:DB8::1]", {
    href: "wss://[2001:db8::1]/",
    hostname: "2001:db8::1",
    host: "[2001:db8::1]",
    ...SECURE,
  }],
  ["ws://user:p%40ss@example.com/", {
    href: "ws://user:p%40ss@example.com/",
    username: "user",
    password: "p@ss",
  }],
  ["ws://100%25:%ff@example.com/", {
    href: "ws://100%25:%ff@example.com/",
    username: "100%",
    password: "%ff",
  }],
  ["ws://b\u00fccher.example", {
    href: "ws://xn--bcher-kva.example/",
    hostname: "xn--bcher-kva.example",
    host: "xn--bcher-kva.example",
  }],
  // The URL parser drops line breaks and tabs, so that none reaches the request.
  ["ws://example.com/a\r\nHost: b", {
    href: "ws://example.com/aHost:%20b",
    resourceName: "/aHost:%20b",
  }],
];

const INVALID: readonly [url: string, message: string][] = [
  ["", 'Expected a URL, received ""'],
  ["example.com", 'Expected a URL, received "example.com"'],
  ["/chat", 'Expected a URL, received "/chat"'],
  ["ws://", 'Expected a URL, received "ws://"'],
  ["ws://a{b}/", "Expected a host name or an IP address, received a{b}"],
  ["ws://example.com:99999", 'Expected a URL, received "ws://example.com:99999"'],
  ["ftp://example.com", "Expected a ws or wss URL, received the scheme ftp:"],
  ["mailto:a@example.com", "Expected a ws or wss URL, received the scheme mailto:"],
  ["wsx://example.com", "Expected a ws or wss URL, received the scheme wsx:"],
  // The message does not show a password.
  ["ws://ada:p@ss@example.com:99999/", 'Expected a URL, received "ws://example.com:99999/"'],
  ["ada:p/s\ns@", "Expected a ws or wss URL, received the scheme ada:"],
  ["//ada:pass@example.com", 'Expected a URL, received "example.com"'],
  [
    "ws://ada:pass@example.com:99999/a?token=b",
    'Expected a URL, received "ws://example.com:99999/a"',
  ],
  ["ws://ada:pass@example.com:99999/a#b", 'Expected a URL, received "ws://example.com:99999/a"'],
  ["ws://ada:p?ss@example.com", 'Expected a URL, received "ws://"'],
  ["ws://a b/?mail=a@b&token=c\n?d", 'Expected a URL, received "ws://"'],
  ["?token=a", 'Expected a URL, received ""'],
  ["ws://example.com/#", "Expected a URL without a fragment"],
  ["ws://example.com/#room", "Expected a URL without a fragment"],
  ["https://example.com/?a#b", "Expected a URL without a fragment"],
];

describe("parseWebSocketUrl", () => {
  for (const [url, expected] of VALID) {
    it(`parseWebSocketUrl reads ${JSON.stringify(url)}`, () => {
      assert.deepEqual(parseWebSocketUrl(url), { ...PLAIN, ...expected });
      assert.deepEqual(parseWebSocketUrl(new URL(url)), { ...PLAIN, ...expected });
    });
  }

  for (const [url, message] of INVALID) {
    it(`parseWebSocketUrl refuses ${JSON.stringify(url)}`, () => {
      assert.throws(() => parseWebSocketUrl(url), { name: "SyntaxError", message });
      assert.throws(() => parseWebSocketUrl(url), DOMException);
    });
  }

  it("parseWebSocketUrl does not change a URL object", () => {
    const url = new URL("http://example.com/");
    parseWebSocketUrl(url);
    assert.equal(url.href, "http://example.com/");
  });
});

describe("requestUrl", () => {
  type Line = Partial<RequestHead>;
  const head = (line: Line): RequestHead => ({
    method: "GET",
    target: "/",
    version: "1.1",
    headers: [["Host", "example.com"]],
    ...line,
  });

  const urls: readonly [line: Line, secure: boolean, url: string][] = [
    [{ target: "/a?b" }, false, "http://example.com/a?b"],
    [{ target: "/a?b" }, true, "https://example.com/a?b"],
    [{ target: "https://other/a" }, false, "https://other/a"],
    [{ target: "WSS://other" }, false, "https://other/"],
    [{ target: "http://other/a" }, true, "http://other/a"],
    [{ method: "OPTIONS", target: "*" }, false, "http://example.com/"],
    [{ method: "OPTIONS", target: "/a" }, false, "http://example.com/a"],
    [{ version: "1.0", headers: [] }, false, "http://localhost/"],
    [{ version: "1.0" }, false, "http://example.com/"],
    [{ version: "2.0" }, true, "https://example.com/"],
  ];
  for (const [line, secure, url] of urls) {
    it(`requestUrl of ${JSON.stringify(line)}, ${secure ? "secure" : "plain"}, is ${url}`, () => {
      assert.equal(requestUrl(head(line), secure).href, url);
    });
  }

  const noTarget = "The request target is neither a path nor the URL of a WebSocket: ";
  const wrong: readonly [line: Line, code: string, message: string][] = [
    [{ headers: [] }, "host", "The request has no Host header instead of one"],
    [{ version: "2.0", headers: [] }, "host", "The request has no Host header instead of one"],
    [
      { headers: [["Host", "a"], ["Host", "a"]] },
      "host",
      "The request has 2 Host headers instead of one",
    ],
    [
      { headers: [["Host", "a:99999"]] },
      "host",
      'The Host header is not a host with an optional port: "a:99999"',
    ],
    [{ target: "*" }, "malformed-head", `${noTarget}"*"`],
    [{ method: "OPTIONS", target: "a" }, "malformed-head", `${noTarget}"a"`],
    [{ target: "http://a:99999/" }, "malformed-head", `${noTarget}"http://a:99999/"`],
    [{ target: "http://a{b}/" }, "malformed-head", `${noTarget}"http://a{b}/"`],
    [{ version: "2.0", target: "https://a/" }, "malformed-head", `${noTarget}"https://a/"`],
  ];
  for (const [line, code, message] of wrong) {
    it(`requestUrl refuses ${JSON.stringify(line)}`, () => {
      const expected = { name: "HandshakeError", code, status: 400, message };
      assert.throws(() => requestUrl(head(line), false), expected);
    });
  }

  it("pathOfTarget reads the path of a target that is valid", () => {
    assert.equal(pathOfTarget("/a/../b?c"), "/b");
    assert.equal(pathOfTarget("http://example.com/a"), "/a");
    assert.equal(pathOfTarget("http://a:99999/a"), undefined);
    assert.equal(pathOfTarget("a"), undefined);
  });
});
