/** A chat with a page for browsers, all of it on one port: open http://127.0.0.1:8080/. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build, stop } from "esbuild";
import { broadcast } from "sluice";
import { attach } from "sluice/node";

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<form><input name="line" maxlength="1000" autocomplete="off" autofocus> <button>Send</button></form>
<ul></ul>
<script type="module">
  import { reconnect } from "/sluice.js";

  const form = document.querySelector("form");
  const show = (text) => {
    const item = document.createElement("li");
    item.textContent = text; // text, not HTML: it comes from others
    document.querySelector("ul").prepend(item);
  };

  let ws;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const text = form.line.value;
    form.reset();
    await ws?.send(text);
  };
  for await (ws of reconnect("/chat", { onRetry: () => show("(offline)") })) {
    try {
      for await (const message of ws) show(message);
    } catch (error) {
      if (!ws.isOwnError(error)) throw error;
    }
  }
</script>`;

// The library as one file for browsers. With a bundler for your page, this step falls away.
const { outputFiles: [library] } = await build({
  entryPoints: [fileURLToPath(import.meta.resolve("sluice/browser"))],
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  write: false,
});
await stop();

const server = createServer(({ url }, response) => {
  if (url === "/") response.setHeader("Content-Type", "text/html").end(PAGE);
  else if (url !== "/sluice.js") response.writeHead(404).end();
  else response.setHeader("Content-Type", "text/javascript").end(library.contents);
});

let guests = 0;

const chat = attach(server, {
  path: "/chat",
  // Only the page above, and programs.
  origins: "same-origin",
  maxMessageSize: 4000,
}, async (ws) => {
  const name = `guest ${++guests}`;
  const tell = (text: string) => broadcast(chat.connections, text, { maxBufferedAmount: 65536 });
  tell(`${name} has come`);
  try {
    for await (const message of ws) tell(`${name}: ${message}`);
  } finally {
    tell(`${name} has left`);
  }
});

server.listen(8080, "127.0.0.1", () => {
  console.log("port:", (server.address() as AddressInfo).port);
});

process.once("SIGTERM", async () => {
  server.close(() => console.log("closed"));
  await chat.shutdown();
});
