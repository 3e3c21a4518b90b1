/** What the reference pages must name: every option, error code, close code and flag of the command. */
import config from "../../deno.json" with { type: "json" };
import { CloseCode } from "../../mod.ts";
import { ROOT, run } from "../process.ts";

const OPTIONS = new URL("docs/reference/options.md", ROOT);
const ERRORS = new URL("docs/reference/errors.md", ROOT);
const CLOSE_CODES = new URL("docs/reference/close-codes.md", ROOT);
const CLI = new URL("docs/reference/cli.md", ROOT);

/** The interfaces that the page of options covers; inherited members are those of the first ones. */
const INTERFACES = [
  "ConnectionOptions",
  "ConnectOptions",
  "ReconnectOptions",
  "ServeOptions",
  "AttachOptions",
  "FromWebSocketOptions",
  "SendOptions",
  "BroadcastOptions",
  "RelayOptions",
  "RetryOptions",
  "CloseInfo",
  "ShutdownOptions",
  "BasicAuthOptions",
  "PerMessageDeflateOptions",
  "TlsConnectOptions",
  "TlsServeOptions",
  "ProxyOptions",
  "HeadLimits",
  "InboxStrategy",
  "TransportPairOptions",
  "PairOptions",
  "LineFault",
];

interface Declaration {
  kind: string;
  def: {
    properties?: { name: string }[];
    methods?: { name: string }[];
    tsType?: { value?: { repr: string }[] };
  };
}

/** Checks that the reference names what exists and nothing else. */
export async function checkReference(): Promise<string[]> {
  const symbols = await publicSymbols();
  return [
    ...await checkOptions(symbols),
    ...await checkErrors(symbols),
    ...await checkCloseCodes(),
    ...await checkCommandLine(),
  ];
}

async function checkOptions(symbols: Map<string, Declaration>): Promise<string[]> {
  const expected = new Set<string>();
  for (const name of INTERFACES) {
    const declared = symbols.get(name)?.def;
    if (declared === undefined) return [`scripts/docs/reference.ts: no interface ${name}`];
    const members = [...declared.properties ?? [], ...declared.methods ?? []];
    for (const member of members) expected.add(member.name);
  }
  const page = await Deno.readTextFile(OPTIONS);
  return differences("docs/reference/options.md", "option", expected, rowsOf(page));
}

async function checkErrors(symbols: Map<string, Declaration>): Promise<string[]> {
  const union = symbols.get("HandshakeErrorCode")?.def.tsType?.value ?? [];
  const codes = new Set(union.map(({ repr }) => repr));
  const page = await Deno.readTextFile(ERRORS);
  const section = /^## Codes of HandshakeError$([^]*?)^## /m.exec(page)?.[1] ?? "";
  return differences("docs/reference/errors.md", "code", codes, rowsOf(section));
}

async function checkCloseCodes(): Promise<string[]> {
  const page = await Deno.readTextFile(CLOSE_CODES);
  const rows = [...page.matchAll(/^\| (\d+) +\| `(\w+)`/gm)].map(([, code, name]) =>
    `${name} ${code}`
  );
  const codes = Object.entries(CloseCode).map((entry) => entry.join(" "));
  return differences("docs/reference/close-codes.md", "code", new Set(codes), new Set(rows));
}

async function checkCommandLine(): Promise<string[]> {
  const { output } = await run(Deno.execPath(), ["run", "-A", "lib/cli.ts", "--help"]);
  const optionsOf = (text: string) => new Set(text.match(/(?<![\w-])--[a-z][a-z-]*/g));
  const page = await Deno.readTextFile(CLI);
  return differences("docs/reference/cli.md", "option", optionsOf(output), optionsOf(page));
}

/** The names in the first cells of the tables: `name`, `"code"` or `name(parameters)`. */
function rowsOf(text: string): Set<string> {
  return new Set(
    [...text.matchAll(/^\| (`[^|]*`) *\|/gm)].flatMap(([, cell]) =>
      [...cell.matchAll(/`"?([\w-]+)[^`]*`/g)].map(([, name]) => name)
    ),
  );
}

function differences(
  page: string,
  what: string,
  expected: Set<string>,
  found: Set<string>,
): string[] {
  return [
    ...[...expected].filter((name) => !found.has(name)).map((name) =>
      `${page}: no ${what} ${name}`
    ),
    ...[...found].filter((name) => !expected.has(name)).map((name) =>
      `${page}: ${what} ${name} does not exist`
    ),
  ];
}

/** The first declaration of every name that the entry points export, except those for browsers alone. */
async function publicSymbols(): Promise<Map<string, Declaration>> {
  const { "./browser": _, ...exports } = config.exports;
  const entries = Object.values(exports);
  const { code, output } = await run(Deno.execPath(), ["doc", "-q", "--json", ...entries]);
  if (code !== 0) throw new Error(output);
  const { nodes } = JSON.parse(output) as {
    nodes: Record<string, { symbols: { name: string; declarations: Declaration[] }[] }>;
  };
  const symbols = Object.values(nodes).flatMap(({ symbols }) => symbols);
  const declared = symbols.filter(({ declarations: [{ kind }] }) => kind !== "reference");
  return new Map(declared.map(({ name, declarations }) => [name, declarations[0]]));
}
