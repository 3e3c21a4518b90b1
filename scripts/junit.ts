/**
 * Reads the JUnit reports of Deno, Bun and Node. Only tests without subtests are counted, and no
 * `describe` groups, so the same suite has the same count on every runtime.
 */

/** One test of a report. */
export interface TestCase {
  /** The names of its groups and its own name, joined with " > ". */
  name: string;
  outcome: "passed" | "failed" | "skipped";
  /** What the runtime wrote about the failure. */
  detail: string;
  /** Why the test was skipped, if it was skipped and gives a reason. */
  reason?: string;
}

interface Node {
  tag: string;
  attributes: Record<string, string>;
  children: Node[];
  text: string;
}

const TAG = /<!--[\s\S]*?-->|<(\/?)([a-z]+)((?:\s+[\w:.-]+="[^"]*")*)\s*(\/?)>/g;
const ATTRIBUTE = /([\w:.-]+)="([^"]*)"/g;
const SEPARATOR = " > ";

/** Parses the tests of a JUnit report. Deno's report lists the groups as tests too. */
export function parseJUnit(xml: string, options: { groupsAreTests: boolean }): TestCase[] {
  const cases = collect(parse(xml), []);
  return options.groupsAreTests ? withoutGroups(cases) : cases;
}

function parse(xml: string): Node {
  const root: Node = { tag: "", attributes: {}, children: [], text: "" };
  const open = [root];
  let end = 0;
  for (const match of xml.matchAll(TAG)) {
    const [whole, closing, tag, attributes, selfClosing] = match;
    const current = open[open.length - 1];
    current.text += unescape(xml.slice(end, match.index));
    end = match.index + whole.length;
    if (tag === undefined) continue;
    if (closing) {
      if (open.length > 1) open.pop();
      continue;
    }
    const node: Node = { tag, attributes: parseAttributes(attributes), children: [], text: "" };
    current.children.push(node);
    if (!selfClosing) open.push(node);
  }
  return root;
}

function parseAttributes(text: string): Record<string, string> {
  const pairs = [...text.matchAll(ATTRIBUTE)].map(([, name, value]) => [name, unescape(value)]);
  return Object.fromEntries(pairs);
}

function unescape(text: string): string {
  const named: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(/&(?:#(\d+)|([a-z]+));/g, (whole, code, name) => {
    if (code !== undefined) return String.fromCodePoint(Number(code));
    return named[name] ?? whole;
  });
}

/** Whether the suite is a group. Suites named after a file or the runner are not part of a test's name. */
function isGroup(node: Node): boolean {
  const { name = "", file } = node.attributes;
  return node.tag === "testsuite" && name !== file && !/\.[cm]?[jt]s$/.test(name);
}

function collect(node: Node, groups: string[]): TestCase[] {
  if (node.tag === "testcase") return [toTestCase(node, groups)];
  const inner = isGroup(node) ? [...groups, node.attributes.name ?? ""] : groups;
  return node.children.flatMap((child) => collect(child, inner));
}

function toTestCase(node: Node, groups: string[]): TestCase {
  const child = (...tags: string[]) => node.children.find(({ tag }) => tags.includes(tag));
  const failure = child("failure", "error");
  // An expected failure ("todo") has both marks.
  const outcome = child("skipped") ? "skipped" : failure ? "failed" : "passed";
  return {
    // Node 22 and 24 escape quotation marks twice.
    name: [...groups, node.attributes.name ?? ""].join(SEPARATOR).replaceAll("&quot;", '"'),
    outcome,
    detail: failure?.text.trim() || failure?.attributes.message || "",
  };
}

/** Keeps a group only if it failed and no test in it did (a failed hook). */
function withoutGroups(cases: TestCase[]): TestCase[] {
  const inside = new Map<string, TestCase[]>();
  for (const test of cases) {
    const names = test.name.split(SEPARATOR);
    for (let depth = 1; depth < names.length; depth++) {
      const group = names.slice(0, depth).join(SEPARATOR);
      const members = inside.get(group);
      if (members) members.push(test);
      else inside.set(group, [test]);
    }
  }
  const failed = (test: TestCase) => test.outcome === "failed";
  return cases.filter((test) => {
    const members = inside.get(test.name);
    return members === undefined || (failed(test) && !members.some(failed));
  });
}
