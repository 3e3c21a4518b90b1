/** The library as a browser gets it. */
export { WebSocketError, WebSocketStream } from "../../lib/browser.ts";
