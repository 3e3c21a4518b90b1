/**
 * Keeps the sources without their types in a folder, for Node 22. Its type stripper takes longer to start
 * than most tests run. Later versions of Node do the same with NODE_COMPILE_CACHE.
 *
 * `STRIPPED_SOURCES` is the folder.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { registerHooks, stripTypeScriptTypes } from "node:module";
import process from "node:process";
import { fileURLToPath } from "node:url";

const folder = process.env.STRIPPED_SOURCES;
mkdirSync(folder, { recursive: true });

function stripped(path) {
  const source = readFileSync(path, "utf8");
  const file = `${folder}/${createHash("sha1").update(source).digest("hex")}`;
  try {
    return readFileSync(file, "utf8");
  } catch {
    const code = withoutWarnings(() => stripTypeScriptTypes(source));
    // Another process may be writing the same file.
    const part = `${file}.${process.pid}`;
    writeFileSync(part, code);
    renameSync(part, file);
    return code;
  }
}

/** Node warns that the function is experimental. Some tests read the warnings. */
function withoutWarnings(call) {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return call();
  } finally {
    process.emitWarning = emitWarning;
  }
}

registerHooks({
  load(url, context, next) {
    if (!/^file:[^?#]*\.m?ts$/.test(url)) return next(url, context);
    return { format: "module", source: stripped(fileURLToPath(url)), shortCircuit: true };
  },
});
