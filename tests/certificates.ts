/** Certificates for the tests, made once for each test file. */
import { type CertificateExtension, generate } from "selfsigned";

/** A certificate and its key, in PEM format. */
export interface Certificate {
  cert: string;
  key: string;
}

export interface Certificates {
  /** The authority that signs all other certificates. */
  ca: string;
  /** An authority that has signed none of the certificates. */
  otherCa: string;
  /** For localhost, 127.0.0.1 and ::1, valid for servers and for clients. */
  leaf: Certificate;
  /** For another host. */
  elsewhere: Certificate;
  /** Expired since yesterday. */
  expired: Certificate;
}

let made: Promise<Certificates> | undefined;

export function certificates(): Promise<Certificates> {
  return made ??= make();
}

const HERE = ["localhost", "127.0.0.1", "::1"];
const DAY = 86_400_000;

async function make(): Promise<Certificates> {
  const [ca, other] = await Promise.all([authority("ca"), authority("other")]);
  return {
    ca: ca.cert,
    otherCa: other.cert,
    leaf: await leaf(ca, "leaf", HERE, 2),
    elsewhere: await leaf(ca, "elsewhere", ["elsewhere.test"], 2),
    expired: await leaf(ca, "expired", HERE, -1),
  };
}

function authority(name: string): Promise<Certificate> {
  return certify(name, 2, [
    { name: "basicConstraints", cA: true, critical: true },
    { name: "keyUsage", keyCertSign: true, cRLSign: true, critical: true },
  ]);
}

/** A certificate signed by an authority, valid for that many days from now, or expired that many days ago. */
function leaf(
  ca: Certificate,
  name: string,
  hosts: readonly string[],
  days: number,
): Promise<Certificate> {
  const altNames = hosts.map((host) =>
    /^[\d.]+$|:/.test(host) ? { type: 7 as const, ip: host } : { type: 2 as const, value: host }
  );
  return certify(name, days, [
    { name: "basicConstraints", cA: false, critical: true },
    { name: "keyUsage", digitalSignature: true, critical: true },
    { name: "extKeyUsage", serverAuth: true, clientAuth: true },
    { name: "subjectAltName", altNames },
  ], ca);
}

async function certify(
  name: string,
  days: number,
  extensions: CertificateExtension[],
  ca?: Certificate,
): Promise<Certificate> {
  const { cert, private: key } = await generate(
    [{ name: "commonName", value: `Sluice test ${name}` }],
    {
      keyType: "ec",
      algorithm: "sha256",
      notBeforeDate: new Date(Date.now() - 3 * DAY),
      notAfterDate: new Date(Date.now() + days * DAY),
      extensions,
      ca,
    },
  );
  return { cert, key };
}
