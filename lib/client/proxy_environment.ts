/**
 * The proxy that environment variables name.
 *
 * A file of its own because these variables are a custom of their own, and no RFC's.
 *
 * @module
 */
import type { WebSocketUrl } from "../core/url.ts";
import { ipBytes, shareBits } from "../ip.ts";

type Environment = (name: string) => string | undefined;

/** The URL of the proxy for a server, and which variable has it; undefined where there is none. */
export function environmentProxy(
  target: Pick<WebSocketUrl, "secure" | "hostname" | "port">,
  environment: Environment,
): { url: string; variable: string } | undefined {
  const exempt = first(["no_proxy", "NO_PROXY"], environment)?.value ?? "";
  if (exempt.split(/[\s,]+/).some((entry) => matches(entry, target))) return undefined;
  const scheme = target.secure ? "https" : "http";
  const names = [`${scheme}_proxy`, `${scheme}_proxy`.toUpperCase(), "all_proxy", "ALL_PROXY"];
  // In a CGI program that one is a header of the request: anybody's, then.
  const inCgi = environment("REQUEST_METHOD") !== undefined;
  const found = first(names.filter((name) => !(inCgi && name === "HTTP_PROXY")), environment);
  if (found === undefined) return undefined;
  const { value, name } = found;
  return { url: /^[a-z][a-z\d+.-]*:\/\//i.test(value) ? value : `http://${value}`, variable: name };
}

/** The first of the variables that is set, and not to nothing. */
function first(
  names: readonly string[],
  environment: Environment,
): { name: string; value: string } | undefined {
  for (const name of names) {
    const value = environment(name)?.trim();
    if (value) return { name, value };
  }
}

/** Whether an entry of NO_PROXY stands for the server. */
function matches(
  entry: string,
  { hostname, port }: Pick<WebSocketUrl, "hostname" | "port">,
): boolean {
  if (entry === "*") return true;
  // An IPv6 address stands in brackets before a port, and only there has colons of its own.
  const parts = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(entry);
  const [name, wanted] = parts === null ? [entry] : [parts[1] ?? parts[2], parts[3]];
  if (!name || (wanted !== undefined && Number(wanted) !== port)) return false;
  const address = ipBytes(hostname);
  if (address !== undefined) return matchesAddress(name, address);
  // A name stands for all below it, with a dot before it or without.
  const domain = name.toLowerCase().replace(/^\*?\./, "").replace(/\.$/, "");
  const host = hostname.replace(/\.$/, "");
  return host === domain || host.endsWith(`.${domain}`);
}

function matchesAddress(name: string, address: Uint8Array): boolean {
  const [text, length] = name.split("/");
  const other = ipBytes(text);
  if (other === undefined || (length !== undefined && !/^\d{1,3}$/.test(length))) return false;
  return shareBits(other, address, length === undefined ? other.length * 8 : Number(length));
}
