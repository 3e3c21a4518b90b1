/** Packages without types. */
// deno-lint-ignore no-explicit-any
declare const untyped: any;
export default untyped;
