/** Checks that the reference pages name every option, error code, close code and flag of the command. */
import config from "../../deno.json" with { type: "json" };
import { CloseCode } from "../../mod.ts";
import { ROOT, run } from "../process.ts";

const OPTIONS = new URL("docs/reference/options.md", ROOT);
const WS = new URL("docs/reference/ws.md", ROOT);
const ERRORS = new URL("docs/reference/errors.md", ROOT);
const CLOSE_CODES = new URL("docs/reference/close-codes.md", ROOT);
const CLI = new URL("docs/reference/cli.md", ROOT);

/** The sections of the options page, each with the interfaces whose members it lists. */
const SECTIONS: Record<string, readonly string[]> = {
  "Every connection": ["ConnectionOptions"],
  "Clients": [
    "ConnectOptions",
    "RetryOptions",
    "ReconnectOptions",
    "ProxyOptions",
    "TlsConnectOptions",
  ],
  "Servers": ["ServeOptions", "AttachOptions", "HeadLimits", "TlsServeOptions", "BasicAuthOptions"],
  "The queue of received messages": ["InboxStrategy"],
  "Compression": ["PerMessageDeflateOptions"],
  "Calls": ["SendOptions", "BroadcastOptions", "RelayOptions", "CloseInfo", "ShutdownOptions"],
  "Native WebSockets": ["FromWebSocketOptions"],
  "Topics": [
    "TopicsOptions",
    "HistoryOptions",
    "PresenceOptions",
    "SubscribeOptions",
    "MessagesOptions",
    "PublishOptions",
    "ServeTopicsOptions",
    "ResumableOptions",
  ],
  "Testing": ["PairOptions", "TransportPairOptions", "LineFault"],
};

/** The sections of the page about `sluice/ws` that list all members of interfaces and classes. */
const WS_SECTIONS: Record<string, readonly string[]> = {
  "Members of a WebSocket": ["WebSocket"],
  "Events of a WebSocket": ["WebSocketEvents"],
  "Members of a server": ["WebSocketServer"],
  "Events of a server": ["WebSocketServerEvents"],
  "Options of clients and servers": ["ConnectionOptions"],
  "Options of clients": ["ClientOptions"],
  "Options of servers": ["ServerOptions"],
  "Options of compression": ["PerMessageDeflateOptions"],
};

interface Member {
  name: string;
  jsDoc?: { tags?: { kind: string; value?: string }[] };
}

interface Declaration {
  kind: string;
  def: {
    properties?: Member[];
    methods?: Member[];
    tsType?: { value?: { repr: string }[] };
  };
}

/** Checks that the reference names everything that exists and nothing else. */
export async function checkReference(): Promise<string[]> {
  const { "./browser": _, "./ws": ws, ...others } = config.exports;
  const symbols = await publicSymbols(Object.values(others));
  return [
    ...await checkOptions(symbols),
    ...await checkWs(await publicSymbols([ws])),
    ...await checkErrors(symbols),
    ...await checkCloseCodes(),
    ...await checkCommandLine(),
  ];
}

async function checkWs(symbols: Map<string, Declaration>): Promise<string[]> {
  const sections = sectionsOf(await Deno.readTextFile(WS));
  return Object.entries(WS_SECTIONS).flatMap(([heading, names]) => {
    const members = names.flatMap((name) => membersOf(symbols, name));
    // Members that begin with an underscore are internal.
    const expected = members.map(({ name }) => name).filter((name) => !name.startsWith("_"));
    const text = sections.find(([found]) => found === heading)?.[1] ?? "";
    return differences(`docs/reference/ws.md, ${heading}`, "row", new Set(expected), rowsOf(text));
  });
}

function sectionsOf(page: string): (readonly [heading: string, text: string])[] {
  return page.split(/^## /m).slice(1).map((text) => [/^.*/.exec(text)![0], text] as const);
}

async function checkOptions(symbols: Map<string, Declaration>): Promise<string[]> {
  const page = await Deno.readTextFile(OPTIONS);
  const sections = sectionsOf(page);
  const problems = differences(
    "docs/reference/options.md",
    "section",
    new Set(Object.keys(SECTIONS)),
    new Set(sections.map(([heading]) => heading)),
  );
  const common = new Set(membersOf(symbols, "ConnectionOptions").map(({ name }) => name));
  for (const [heading, text] of sections) {
    const members = (SECTIONS[heading] ?? []).flatMap((name) => membersOf(symbols, name));
    const expected = new Set(members.map(({ name }) => name));
    const found = rowsOf(text);
    const isConnection = heading === "Clients" || heading === "Servers";
    const where = `docs/reference/options.md, ${heading}`;
    problems.push(
      ...differences(where, "option", expected, found).filter((problem) =>
        // Options that every connection has need not be repeated.
        !(isConnection && [...common].some((name) => problem === `${where}: no option ${name}`))
      ),
      ...checkDefaults(where, text, members),
    );
  }
  return problems;
}

function membersOf(symbols: Map<string, Declaration>, name: string): Member[] {
  const declared = symbols.get(name)?.def;
  if (declared === undefined) throw new Error(`There is no interface ${name}`);
  return [...declared.properties ?? [], ...declared.methods ?? []];
}

/** Checks that the last cell of a row begins with the default of the doc comment. */
function checkDefaults(where: string, text: string, members: Member[]): string[] {
  const rows = [...text.matchAll(/^\| `([\w-]+)[^|]*\|.*\| *([^|]*?) *\|$/gm)];
  // Several interfaces of a section may have an option of the same name.
  const defaultsOf = (name: string) =>
    members.filter((member) => member.name === name).flatMap(({ jsDoc }) =>
      jsDoc?.tags?.find(({ kind }) => kind === "default")?.value ?? []
    );
  return rows.flatMap(([, name, cell]) => {
    const values = defaultsOf(name);
    const [shown] = cell.split(/[;:] /);
    if (values.length === 0 || values.some((value) => shownAs(value).includes(shown))) return [];
    return [`${where}: the default of ${name} is ${values.join(" or ")}, not ${cell}`];
  });
}

/** Returns the forms in which the page may show a default value. */
function shownAs(value: string): string[] {
  const number = Number(value.replaceAll("_", ""));
  if (Number.isNaN(number)) return [`\`${value}\``];
  const shown = [number.toLocaleString("en-US")];
  if (number === 0 || number === Infinity) shown.push("none");
  for (const [unit, bytes] of [["KiB", 2 ** 10], ["MiB", 2 ** 20]] as const) {
    if (number % bytes === 0) shown.push(`${number / bytes} ${unit}`);
  }
  return shown;
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

/** The first declaration of every name that the entry points export. */
async function publicSymbols(entries: readonly string[]): Promise<Map<string, Declaration>> {
  const { code, output } = await run(Deno.execPath(), ["doc", "-q", "--json", ...entries]);
  if (code !== 0) throw new Error(output);
  const { nodes } = JSON.parse(output) as {
    nodes: Record<string, { symbols: { name: string; declarations: Declaration[] }[] }>;
  };
  const symbols = Object.values(nodes).flatMap(({ symbols }) => symbols);
  const declared = symbols.filter(({ declarations: [{ kind }] }) => kind !== "reference");
  return new Map(declared.map(({ name, declarations }) => [name, declarations[0]]));
}
