/** Servers and sessions of HTTP/2 for the tests. */
import { type ClientHttp2Session, connect, type Http2Session } from "node:http2";
import process from "node:process";

/** Why there is no server of HTTP/2 here, if there is none. */
export const noServer: string | undefined = process.versions.deno === undefined
  ? undefined
  : "Deno's server of node:http2 can be made to crash";

/** A session, whose errors are told to who is waiting. */
export function dial(url: string): ClientHttp2Session {
  const session = connect(url);
  session.on("error", () => {});
  return session;
}

/** Ends a session at once. */
export async function endSession(session: Http2Session): Promise<void> {
  if (session.destroyed) return;
  const closed = new Promise<void>((resolve) => session.once("close", resolve));
  session.destroy();
  await closed;
}
