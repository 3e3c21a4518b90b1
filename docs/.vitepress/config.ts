/** The site: `deno task docs`. */
import { existsSync, readFileSync } from "node:fs";
import { defineConfig, type MarkdownOptions } from "vitepress";

const REPOSITORY = "https://github.com/sluice-ws/sluice/blob/main/";

/** The pages of the API reference by the names of the symbols, as `deno task docs` has written them. */
const API_PAGES = new URL("../../.cache/docs/api.json", import.meta.url);
const api = new Map<string, string>(
  existsSync(API_PAGES) ? Object.entries(JSON.parse(readFileSync(API_PAGES, "utf8"))) : [],
);

type MarkdownIt = Parameters<NonNullable<MarkdownOptions["config"]>>[0];
type Token = ReturnType<MarkdownIt["parse"]>[number];

/** The page of the API reference about a piece of code: a call as `serve()`, or a type. */
function apiPage(code: string): string | undefined {
  const [, name, call] = /^([A-Za-z]\w*)(\(\))?$/.exec(code) ?? [];
  const isType = name !== undefined && /^[A-Z]\w*[a-z]/.test(name);
  return call !== undefined || isType ? api.get(name) : undefined;
}

/** Where the site has a file that is not in docs/. */
function linkOutside(path: string): string {
  return path === "bench/RESULTS.md" ? "/results.html" : REPOSITORY + path;
}

const IMPORT = /^import (?:type )?\{([^}]*)\} from "sluice(?:\/\w+)?";$/gm;

/** Returns links to what the programs of a page import, as HTML; undefined if they import nothing. */
function importedLinks(tokens: Token[]): string | undefined {
  const programs = tokens.filter(({ type }) => type === "fence").map(({ content }) => content);
  const names = programs.flatMap((program) => [...program.matchAll(IMPORT)])
    .flatMap(([, list]) => list.split(",").map((name) => name.trim().replace(/^type /, "")));
  const links = [...new Set(names)].sort().flatMap((name) => {
    const page = api.get(name);
    return page === undefined
      ? []
      : [`<a href="/api/${page}" target="_self" class="api"><code>${name}</code></a>`];
  });
  return links.length === 0 ? undefined : `<p>API reference: ${links.join(", ")}</p>\n`;
}

/** Links that leave docs/ point to a file of the repository, and names of the API to their pages. */
function addLinks(md: MarkdownIt): void {
  md.core.ruler.push("sluice-links", ({ tokens, env, Token: Constructor }) => {
    const leaves = "../".repeat(env.relativePath.split("/").length);
    for (const token of tokens) {
      let inLink = false;
      token.children = token.children?.flatMap((child): Token | Token[] => {
        if (child.type === "link_open") {
          inLink = true;
          const href = child.attrGet("href") ?? "";
          if (href.startsWith(leaves)) {
            child.attrSet("href", linkOutside(href.slice(leaves.length)));
          }
        }
        if (child.type === "link_close") inLink = false;
        const page = child.type === "code_inline" && !inLink ? apiPage(child.content) : undefined;
        if (page === undefined) return child;
        const open = new Constructor("link_open", "a", 1);
        open.attrs = [["href", `/api/${page}`], ["target", "_self"], ["class", "api"]];
        return [open, child, new Constructor("link_close", "a", -1)];
      }) ?? null;
    }
    const links = importedLinks(tokens);
    if (links === undefined || env.relativePath === "index.md") return;
    const html = new Constructor("html_block", "", 0);
    html.content = links;
    tokens.push(html);
  });
}

export default defineConfig({
  title: "Sluice",
  description: "WebSocket on WHATWG streams, for Deno, Bun and Node",
  lang: "en",
  outDir: "../site",
  cacheDir: "../.cache/vitepress",
  head: [["link", { rel: "icon", href: "/icon.svg", type: "image/svg+xml" }]],
  // scripts/docs/links.ts checks the links, those to files outside of docs/ too.
  ignoreDeadLinks: true,
  markdown: {
    theme: { light: "github-light", dark: "github-dark" },
    config: addLinks,
  },
  themeConfig: {
    logo: "/icon.svg",
    search: { provider: "local" },
    outline: { level: [2, 3] },
    nav: [
      { text: "Start", link: "/start/install", activeMatch: "/start/" },
      { text: "Guides", link: "/guides/", activeMatch: "/guides/" },
      { text: "Reference", link: "/reference/options", activeMatch: "/reference/" },
      { text: "API", link: "/api/all_symbols.html", target: "_self" },
      { text: "Measurements", link: "/measurements", activeMatch: "/(measurements|results)" },
    ],
    sidebar: [
      {
        text: "Start",
        items: [
          { text: "Install", link: "/start/install" },
          { text: "A server and a client", link: "/start/first-server" },
          { text: "Streams and backpressure", link: "/start/streams" },
          { text: "A browser page", link: "/start/browser" },
          { text: "Testing your application", link: "/start/testing" },
        ],
      },
      {
        text: "Guides",
        items: [
          { text: "All guides", link: "/guides/" },
          { text: "Rooms and broadcast", link: "/guides/rooms" },
          { text: "Topics", link: "/guides/topics" },
          { text: "Routing", link: "/guides/routing" },
          { text: "Authentication and sessions", link: "/guides/authentication" },
          { text: "Express, Fastify, Hono, Deno.serve", link: "/guides/frameworks" },
          { text: "Workers and native WebSockets", link: "/guides/workers" },
          { text: "Large messages and uploads", link: "/guides/large-messages" },
          { text: "JSON and JSON-RPC", link: "/guides/json-rpc" },
          { text: "Gateways", link: "/guides/gateways" },
          { text: "Reconnecting", link: "/guides/reconnecting" },
          { text: "Compression", link: "/guides/compression" },
          { text: "HTTP/2", link: "/guides/http2" },
        ],
      },
      {
        text: "Running it",
        items: [
          { text: "Behind a proxy", link: "/guides/behind-a-proxy" },
          { text: "Many processes and machines", link: "/guides/scaling" },
          { text: "Logging and metrics", link: "/guides/metrics" },
          { text: "Debugging", link: "/guides/debugging" },
          { text: "Graceful shutdown", link: "/guides/shutdown" },
        ],
      },
      {
        text: "Migrating",
        items: [
          { text: "From ws", link: "/migrating/from-ws" },
          { text: "From Python websockets", link: "/migrating/from-python-websockets" },
          { text: "From Bun.serve and Deno", link: "/migrating/from-native-servers" },
          { text: "From Socket.IO", link: "/migrating/from-socket-io" },
        ],
      },
      {
        text: "Concepts",
        items: [
          { text: "The life of a connection", link: "/concepts/life" },
          { text: "Where bytes wait", link: "/concepts/backpressure" },
          { text: "Keepalive and timeouts", link: "/concepts/keepalive" },
          { text: "Memory and limits", link: "/concepts/limits" },
          { text: "A million subscribers", link: "/concepts/fan-out" },
          { text: "Security", link: "/concepts/security" },
          { text: "The core without I/O", link: "/concepts/core" },
          { text: "Writing a transport", link: "/concepts/writing-transports" },
          { text: "Writing an extension", link: "/concepts/writing-extensions" },
        ],
      },
      {
        text: "Reference",
        items: [
          { text: "Options", link: "/reference/options" },
          { text: "Errors and codes", link: "/reference/errors" },
          { text: "Wire format of topics", link: "/reference/topics" },
          { text: "Close codes", link: "/reference/close-codes" },
          { text: "sluice/ws", link: "/reference/ws" },
          { text: "Command line", link: "/reference/cli" },
          { text: "Other implementations", link: "/reference/interop" },
          { text: "Questions", link: "/faq" },
        ],
      },
      {
        text: "Measurements",
        items: [
          { text: "Speed, memory, latency, reliability", link: "/measurements" },
          { text: "All results", link: "/results" },
        ],
      },
    ],
  },
});
