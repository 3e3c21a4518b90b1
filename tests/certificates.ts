/** Certificates for the tests, made with the command `openssl` once for each test file. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** A certificate and its key, in PEM format. */
export interface Certificate {
  cert: string;
  key: string;
}

export interface Certificates {
  /** The authority of all the others. */
  ca: string;
  /** An authority of nobody. */
  otherCa: string;
  /** For localhost, 127.0.0.1 and ::1; good for servers and for clients. */
  leaf: Certificate;
  /** For another host. */
  elsewhere: Certificate;
  /** Of the day before. */
  expired: Certificate;
}

let made: Promise<Certificates> | undefined;

/** The certificates. */
export function certificates(): Promise<Certificates> {
  return made ??= make();
}

const HERE = "DNS:localhost,IP:127.0.0.1,IP:::1";

async function make(): Promise<Certificates> {
  const folder = await mkdtemp(join(tmpdir(), "sluice-"));
  try {
    const [ca, other] = await Promise.all([authority(folder, "ca"), authority(folder, "other")]);
    return {
      ca: ca.cert,
      otherCa: other.cert,
      leaf: await leaf(folder, "leaf", HERE, 2),
      elsewhere: await leaf(folder, "elsewhere", "DNS:elsewhere.test", 2),
      expired: await leaf(folder, "expired", HERE, -1),
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

async function openssl(folder: string, ...args: string[]): Promise<void> {
  await promisify(execFile)("openssl", args, { cwd: folder });
}

async function authority(folder: string, name: string): Promise<Certificate> {
  await openssl(
    folder,
    ...["req", "-x509", ...NEW_KEY, "-keyout", `${name}.key`, "-out", `${name}.pem`],
    ...["-days", "2", "-subj", `/CN=Sluice test ${name}`],
    ...["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
  );
  return await read(folder, name);
}

/** A certificate signed by the authority "ca". */
async function leaf(
  folder: string,
  name: string,
  hosts: string,
  days: number,
): Promise<Certificate> {
  const extensions = [
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=critical,digitalSignature",
    "extendedKeyUsage=serverAuth,clientAuth",
    `subjectAltName=${hosts}`,
  ];
  await writeFile(join(folder, `${name}.ext`), extensions.join("\n"));
  await openssl(
    folder,
    ...["req", ...NEW_KEY, "-keyout", `${name}.key`, "-out", `${name}.csr`],
    ...["-subj", `/CN=Sluice test ${name}`],
  );
  await openssl(
    folder,
    ...["x509", "-req", "-in", `${name}.csr`, "-out", `${name}.pem`, "-days", String(days)],
    ...["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", `${name}.ext`],
  );
  return await read(folder, name);
}

async function read(folder: string, name: string): Promise<Certificate> {
  const [cert, key] = await Promise.all(
    [`${name}.pem`, `${name}.key`].map((file) => readFile(join(folder, file), "utf8")),
  );
  return { cert, key };
}
