/** The page in Chromium that plays the ends. Commands and events go over a WebSocket to `chromium_peer.ts`. */
import { run } from "./agent.ts";
import { StandardEnd, type StandardSocket, type StreamClass, StreamEnd } from "./standard.ts";

class PageEnd extends StandardEnd {
  listen(): void {
    throw new Error("It has no server");
  }

  connect(): void {
    const { url, protocols } = this.options;
    this.use(new WebSocket(url!, protocols) as unknown as StandardSocket);
  }

  abort(): void {
    throw new Error("A page cannot cut a connection");
  }
}

const control = new WebSocket(`ws://${location.host}/control`);

async function* commands(): AsyncGenerator<string> {
  const lines: string[] = [];
  let wake: (() => void) | undefined;
  control.onmessage = ({ data }) => {
    lines.push(data);
    wake?.();
  };
  for (;;) {
    while (lines.length > 0) yield lines.shift()!;
    await new Promise<void>((resolve) => wake = resolve);
  }
}

const [, version] = /Chrome\/([\d.]+)/.exec(navigator.userAgent) ?? [];
const { WebSocketStream } = globalThis as unknown as { WebSocketStream: StreamClass };
const isStream = new URLSearchParams(location.search).get("class") === "stream";
control.onopen = () =>
  run(
    `Chromium ${version}`,
    (tell) => isStream ? new StreamEnd(tell, WebSocketStream, () => {}) : new PageEnd(tell),
    { commands: commands(), write: (line) => control.send(line) },
  );
