/** The certificates of the tests, also as files for programs that read them from files. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Certificate, certificates } from "../certificates.ts";

export interface Credentials {
  ca: string;
  leaf: Certificate;
  caFile: string;
  leafFiles: { cert: string; key: string; both: string };
}

/** Writes the files into a new folder. `remove` removes it. */
export async function writeCredentials(): Promise<Credentials & { remove(): Promise<void> }> {
  const { ca, leaf } = await certificates();
  const folder = await mkdtemp(join(tmpdir(), "sluice-certificates-"));
  const write = async (name: string, text: string) => {
    const path = join(folder, name);
    await writeFile(path, text);
    return path;
  };
  return {
    ca,
    leaf,
    caFile: await write("ca.pem", ca),
    leafFiles: {
      cert: await write("cert.pem", leaf.cert),
      key: await write("key.pem", leaf.key),
      both: await write("both.pem", `${leaf.cert}\n${leaf.key}`),
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
