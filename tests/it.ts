/**
 * `it` of node:test for tests that may be skipped. It also reports the reason for a skip to the test runner,
 * because the reports of Deno and Bun do not contain it.
 */
import { appendFileSync } from "node:fs";
import process from "node:process";
import { it as defineTest } from "node:test";

type Body = () => unknown;

/** Options of a test. */
export interface TestOptions {
  /** The reason to skip the test, made by one of the functions below; false or undefined if the test runs. */
  skip?: string | boolean;
}

/** Defines a test. */
export function it(title: string, options: TestOptions | Body, body?: Body): void {
  if (typeof options === "function") {
    return void defineTest(title, async () => void await options());
  }
  const { skip = false } = options;
  if (typeof skip === "string") noteReason(title, skip);
  void defineTest(title, { skip }, async () => void await body!());
}

function noteReason(title: string, reason: string): void {
  const { SKIPS } = process.env;
  if (SKIPS) appendFileSync(SKIPS, `${JSON.stringify([title, reason])}\n`);
}

/** The reason to skip a test that does not apply to this runtime. */
export function notApplicable(why: string): string {
  return `not applicable: ${why}`;
}

/** The reason to skip a test that needs a program which is not installed. */
export function peerMissing(why: string): string {
  return `peer missing: ${why}`;
}

/** The reason to skip a test of something that is known not to work here. */
export function knownLimit(why: string): string {
  return `known limit: ${why}`;
}
