/** Uses the names of the browser entry point. It is compiled like `types_consumer.ts`. */
import { connect, type WebSocketConnection, WebSocketError, WebSocketStream } from "sluice";
import {
  broadcast,
  CloseCode,
  connect as connectPage,
  errorCodeOf,
  fromWebSocket,
  isTransient,
  reconnect,
  relay,
} from "sluice/browser";

/** The close information of the standard's draft. */
interface CloseInfo {
  closeCode?: number;
  reason?: string;
}
interface StandardStream {
  readonly url: string;
  readonly opened: Promise<{
    readable: ReadableStream;
    writable: WritableStream;
    extensions: string;
    protocol: string;
  }>;
  readonly closed: Promise<CloseInfo>;
  close(info?: CloseInfo): void;
}
interface StandardOptions {
  protocols?: string[];
  signal?: AbortSignal;
}
interface StandardError extends DOMException {
  readonly closeCode: number | null;
  readonly reason: string;
}

/** Our classes can replace the standard's, which a "dom" library may declare as globals. */
export const standard: [
  new (url: string, options?: StandardOptions) => StandardStream,
  new (message?: string, init?: CloseInfo) => StandardError,
] = [WebSocketStream, WebSocketError];

/** Code of a page. */
export async function usePage(): Promise<string> {
  const ws: WebSocketConnection = await connect("wss://example.com/", { maxMessageSize: 1024 });
  await ws.send("text");
  await (await connectPage("/chat")).close({ closeCode: CloseCode.Normal });
  for await (const next of reconnect(() => "/feed", { retry: isTransient })) {
    const { sent }: { sent: number } = broadcast([next], "text", { except: ws });
    const [end] = await relay(next, await fromWebSocket(new WebSocket("/other")));
    await next.send(`${sent} ${end.closeCode} ${errorCodeOf(next.signal.reason)}`);
  }
  const stream: WebSocketStream = new WebSocketStream("wss://example.com/");
  const { readable, writable } = await stream.opened;
  await readable.pipeTo(writable);
  const error: WebSocketError = new WebSocketError("", { closeCode: 4000 });
  return `${(await stream.closed).closeCode} ${error.closeCode}`;
}
