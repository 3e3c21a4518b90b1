/**
 * Reads the JUnit reports of Deno, Bun and Node. Only tests without subtests are counted, and no
 * `describe` groups, so the same suite has the same count on every runtime.
 */
import { XMLParser } from "fast-xml-parser";

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

interface Failure {
  "#text"?: string;
  "@message"?: string;
}

/** A suite or a test of the report. The parser gives an array for each kind of child. */
interface Element {
  "@name"?: string;
  "@file"?: string;
  testsuites?: Element[];
  testsuite?: Element[];
  testcase?: Element[];
  skipped?: unknown[];
  failure?: Failure[];
  error?: Failure[];
}

const SEPARATOR = " > ";
const PARSER = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: "@",
  alwaysCreateTextNode: true,
  parseTagValue: false,
  trimValues: false,
  htmlEntities: true,
  isArray: (_name, _path, _isLeaf, isAttribute) => !isAttribute,
});

/** Parses the tests of a JUnit report. Deno's report lists the groups as tests too. */
export function parseJUnit(xml: string, options: { groupsAreTests: boolean }): TestCase[] {
  const cases = collect(PARSER.parse(xml), []);
  return options.groupsAreTests ? withoutGroups(cases) : cases;
}

function collect(element: Element, groups: string[]): TestCase[] {
  const { testcase = [], testsuite = [], testsuites = [] } = element;
  const suites = [...testsuite, ...testsuites].flatMap((suite) => {
    const { "@name": name = "", "@file": file } = suite;
    // Suites named after a file or the runner are not part of a test's name.
    const isGroup = testsuite.includes(suite) && name !== file && !/\.[cm]?[jt]s$/.test(name);
    return collect(suite, isGroup ? [...groups, name] : groups);
  });
  return [...testcase.map((test) => toTestCase(test, groups)), ...suites];
}

function toTestCase(test: Element, groups: string[]): TestCase {
  const [failure] = test.failure ?? test.error ?? [];
  return {
    // Node 22 and 24 escape quotation marks twice.
    name: [...groups, test["@name"] ?? ""].join(SEPARATOR).replaceAll("&quot;", '"'),
    // An expected failure ("todo") has both marks.
    outcome: test.skipped ? "skipped" : failure ? "failed" : "passed",
    detail: failure?.["#text"]?.trim() || failure?.["@message"] || "",
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
