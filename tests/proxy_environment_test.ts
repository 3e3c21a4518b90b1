import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { parseWebSocketUrl } from "../lib/core/mod.ts";
import { ipBytes } from "../lib/core/url.ts";
import { environmentProxy } from "../lib/client/proxy.ts";

function proxyOf(url: string, variables: Record<string, string>): string | undefined {
  return environmentProxy(parseWebSocketUrl(url), (name) => variables[name])?.url;
}

describe("The proxy of the environment", () => {
  const cases: [url: string, variables: Record<string, string>, expected: string | undefined][] = [
    ["ws://a.test", {}, undefined],
    ["ws://a.test", { HTTP_PROXY: "http://p:1" }, "http://p:1"],
    ["ws://a.test", { http_proxy: "http://p:1", HTTP_PROXY: "http://q:1" }, "http://p:1"],
    ["ws://a.test", { HTTPS_PROXY: "http://p:1" }, undefined],
    ["wss://a.test", { HTTP_PROXY: "http://p:1" }, undefined],
    ["wss://a.test", { HTTPS_PROXY: "https://p:1" }, "https://p:1"],
    ["wss://a.test", { https_proxy: "http://p:1", HTTPS_PROXY: "http://q:1" }, "http://p:1"],
    ["ws://a.test", { ALL_PROXY: "socks5://p" }, "socks5://p"],
    ["wss://a.test", { all_proxy: "socks5h://p", ALL_PROXY: "http://q" }, "socks5h://p"],
    ["wss://a.test", { all_proxy: "http://p", HTTPS_PROXY: "http://q" }, "http://q"],
    ["ws://a.test", { http_proxy: " ", HTTP_PROXY: "http://q" }, "http://q"],
    ["ws://a.test", { HTTP_PROXY: " p.test:3128 " }, "http://p.test:3128"],
    // In a CGI program this variable holds the value of a header field named Proxy, which the client chooses.
    ["ws://a.test", { HTTP_PROXY: "http://p", REQUEST_METHOD: "GET" }, undefined],
    ["ws://a.test", { http_proxy: "http://p", REQUEST_METHOD: "GET" }, "http://p"],
  ];
  for (const [url, variables, expected] of cases) {
    it(`for ${url} with ${JSON.stringify(variables)} is ${expected}`, () => {
      assert.equal(proxyOf(url, variables), expected);
    });
  }

  const exempt: [entry: string, host: string, exempted: boolean][] = [
    ["*", "a.test", true],
    ["a.test", "a.test", true],
    ["A.Test", "a.test", true],
    ["a.test.", "a.test", true],
    ["a.test", "a.test.", true],
    ["a.test", "b.a.test", true],
    [".a.test", "b.a.test", true],
    [".a.test", "a.test", true],
    ["*.a.test", "b.a.test", true],
    ["a.test", "ba.test", false],
    ["a.test", "a.test.example", false],
    ["test", "a.test", true],
    ["b.test, a.test", "a.test", true],
    ["b.test a.test", "a.test", true],
    [",, ,", "a.test", false],
    [".", "a.test", false],
    ["a.test:80", "a.test", true],
    ["a.test:81", "a.test", false],
    ["a.test:81", "a.test:81", true],
    ["127.0.0.1", "127.0.0.1", true],
    ["127.0.0.1:80", "127.0.0.1", true],
    ["127.0.0.1:81", "127.0.0.1", false],
    ["0.0.1", "127.0.0.1", false],
    ["10.0.0.0/8", "10.1.2.3", true],
    ["10.0.0.0/8", "11.1.2.3", false],
    ["10.1.2.0/23", "10.1.3.255", true],
    ["10.1.2.0/23", "10.1.4.0", false],
    ["0.0.0.0/0", "10.1.4.0", true],
    ["10.0.0.0/33", "10.0.0.0", false],
    ["10.0.0.0/x", "10.0.0.0", false],
    ["10.0.0.0/", "10.0.0.0", false],
    ["::1", "[::1]", true],
    ["[::1]", "[::1]", true],
    ["[::1]:80", "[::1]", true],
    ["[::1]:81", "[::1]", false],
    ["0:0::0:1", "[::1]", true],
    ["fe80::/10", "[fe80::1]", true],
    ["fe80::/10", "[fec0::1]", false],
    ["::/0", "10.0.0.1", false],
  ];
  for (const [entry, host, exempted] of exempt) {
    it(`NO_PROXY ${JSON.stringify(entry)} ${exempted ? "exempts" : "leaves"} ${host}`, () => {
      for (const name of ["NO_PROXY", "no_proxy"]) {
        const found = proxyOf(`ws://${host}`, { HTTP_PROXY: "http://p", [name]: entry });
        assert.equal(found, exempted ? undefined : "http://p");
      }
    });
  }

  const addresses: [text: string, bytes: number[] | undefined][] = [
    ["1.2.3.4", [1, 2, 3, 4]],
    ["1.2.3.256", undefined],
    ["1.2.3", undefined],
    ["::", Array(16).fill(0)],
    ["1:2:3:4:5:6:7:8", [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8]],
    ["ff::1.2.3.4", [0, 255, ...Array(10).fill(0), 1, 2, 3, 4]],
    ["1::2::3", undefined],
    ["a.test", undefined],
    ["", undefined],
  ];
  for (const [text, bytes] of addresses) {
    it(`ipBytes() reads ${JSON.stringify(text)}`, () => {
      assert.deepEqual(ipBytes(text), bytes && Uint8Array.from(bytes));
    });
  }
});
