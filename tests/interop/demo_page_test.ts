/**
 * The page of `deno task demo --page` in Chromium: its elements, its keyboard control, and its appearance.
 */
import { describe } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { writeFile } from "node:fs/promises";
import { Buffer } from "node:buffer";
import { inflateSync } from "node:zlib";
import { servePage } from "../../scripts/demo/page_server.ts";
import { it } from "../it.ts";
import { type DevTools, withDevTools } from "./chromium.ts";
import { PEERS, unlessThere } from "./peers.ts";

const { skip } = unlessThere(PEERS.chromium);

/** Waits until an expression is true in the page. Only a hang reaches the deadline. */
async function until(tools: DevTools, expression: string): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!await tools.evaluate<boolean>(expression)) {
    if (performance.now() > deadline) {
      const text = await tools.evaluate<string>("document.body.innerText");
      throw new Error(`Expected ${expression} in the page:\n${text}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Starts a server, and shows its page. */
async function withPage(hash: string, use: (tools: DevTools) => Promise<void>): Promise<void> {
  const server = await servePage(0);
  try {
    await withDevTools(`${server.url}#${hash}`, async (tools) => {
      await until(tools, `location.protocol === "http:" && document.readyState === "complete"`);
      await use(tools);
    });
  } finally {
    await server.close();
  }
}

const textOf = (id: string) => `document.getElementById(${JSON.stringify(id)}).textContent`;
const numberOf = (id: string) => `Number(${textOf(id)}.replace(/[^\\d.]/g, ""))`;

async function press(tools: DevTools, key: string, code = key): Promise<void> {
  const codes: Record<string, number> = {
    ArrowLeft: 37,
    ArrowRight: 39,
    Home: 36,
    End: 35,
    Tab: 9,
  };
  const windowsVirtualKeyCode = codes[key] ?? 32;
  const text = key === " " ? { text: " " } : {};
  for (const type of ["keyDown", "keyUp"]) {
    await tools.call("Input.dispatchKeyEvent", { type, key, code, windowsVirtualKeyCode, ...text });
  }
}

/** The number of colours in a PNG of 8 bits a channel, estimated from its filtered bytes. */
function coloursOf(png: Uint8Array): number {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const parts: Uint8Array[] = [];
  for (let at = 8; at < png.length;) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...png.subarray(at + 4, at + 8));
    if (type === "IDAT") parts.push(png.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const bytes = inflateSync(Buffer.concat(parts));
  const seen = new Set<number>();
  for (let i = 0; i + 3 < bytes.length; i += 4) seen.add(bytes.readUInt32LE(i));
  return seen.size;
}

describe("The page of the demo in Chromium", () => {
  it("Messages flow, the queues fill, the sender is paused, and all flows again", {
    skip,
  }, async () => {
    await withPage("", async (tools) => {
      await until(tools, `${numberOf("rate")} > 10`);
      await until(tools, `${textOf("state")}.startsWith("Messages flow")`);
      assert.equal(await tools.evaluate(textOf("line")), "WebSocketStream");
      // With the keyboard alone: moves to the slider, and to its lowest value.
      await press(tools, "Tab");
      assert.equal(await tools.evaluate("document.activeElement.id"), "speed");
      await press(tools, "Home");
      assert.equal(await tools.evaluate(textOf("speed-text")), "stopped");
      await until(tools, `${textOf("state")}.startsWith("The sender is paused")`);
      await until(tools, `${textOf("queue")} === "64 of 64"`);
      assert.equal(
        await tools.evaluate(`document.querySelector("#page .bar").getAttribute("aria-valuenow")`),
        "100",
      );
      await until(tools, `${numberOf("outbox")} > 0`);
      await press(tools, "End");
      await until(tools, `${textOf("state")}.startsWith("Messages flow")`);
      assert.equal(await tools.evaluate(textOf("again")), "never");
    });
  });

  it("Compression makes the messages smaller on the wire", { skip }, async () => {
    await withPage("", async (tools) => {
      await until(tools, `${numberOf("wire")} > 16000`);
      await press(tools, "Tab");
      await press(tools, "Tab");
      assert.equal(await tools.evaluate("document.activeElement.id"), "compression");
      await press(tools, " ", "Space");
      assert.equal(await tools.evaluate("document.activeElement.checked"), true);
      await until(tools, `${numberOf("wire")} > 0 && ${numberOf("wire")} < 2000`);
    });
  });

  it("Each control has a label, and each state a text", { skip }, async () => {
    await withPage("speed=5", async (tools) => {
      const unlabelled = await tools.evaluate<number>(
        `[...document.querySelectorAll("input")].filter(({ labels }) => labels.length === 0).length`,
      );
      assert.equal(unlabelled, 0);
      const meters = await tools.evaluate<string[]>(
        `[...document.querySelectorAll("[role=meter]")].map((meter) =>
          document.getElementById(meter.getAttribute("aria-labelledby")).textContent)`,
      );
      assert.match(meters[0], /^Waiting to be sent: /);
      assert.match(meters[1], /^Waiting to be read: /);
      assert.equal(await tools.evaluate("document.getElementById('state').role"), "status");
    });
  });

  for (const scheme of ["light", "dark"]) {
    it(`A screenshot is not blank: ${scheme}`, { skip }, async () => {
      await withPage("speed=8", async (tools) => {
        await tools.call("Emulation.setEmulatedMedia", {
          features: [{ name: "prefers-color-scheme", value: scheme }],
        });
        const size = { width: 900, height: 730, deviceScaleFactor: 1, mobile: false };
        await tools.call("Emulation.setDeviceMetricsOverride", size);
        await until(tools, `document.getElementById("rates").points.length > 60`);
        await tools.evaluate(`document.getElementById("speed").value = 4`);
        await tools.evaluate(`document.getElementById("speed").dispatchEvent(new Event("input"))`);
        await until(tools, `${textOf("state")}.startsWith("The sender is paused")`);
        await until(tools, `document.getElementById("rates").points.length > 120`);
        const { data } = await tools.call("Page.captureScreenshot", { format: "png" });
        const png = Buffer.from(data as string, "base64");
        assert.ok(coloursOf(png) > 100, `${coloursOf(png)} colours`);
        const back = await tools.evaluate("getComputedStyle(document.body).backgroundColor");
        assert.equal(back, scheme === "dark" ? "rgb(18, 22, 29)" : "rgb(251, 251, 253)");
        // This creates the picture in the README.
        const { DEMO_PICTURE } = process.env;
        if (scheme === "light" && DEMO_PICTURE) await writeFile(DEMO_PICTURE, png);
      });
    });
  }
});
