/** What `node.ts` needs of `node:tls`. It is loaded when TLS is first used. */
import { X509Certificate } from "node:crypto";
import { isIP, type Socket } from "node:net";
import {
  checkServerIdentity,
  connect,
  type ConnectionOptions,
  createServer,
  type PeerCertificate,
  type Server,
  type TLSSocket,
} from "node:tls";
import type { ListenOptions, TlsConnectOptions } from "../transport.ts";

/** Begins a TLS connection to a place, or over a socket. */
export function connectTls(
  to: { host: string; port: number } | { path: string } | { socket: Socket },
  tls: TlsConnectOptions,
): TLSSocket {
  return connect({ ...to, ...tlsOptions(tls) });
}

/** Creates a server whose handshakes have no time limit of their own. */
export function createTlsServer(
  { ca, cert, key, alpn }: NonNullable<ListenOptions["tls"]>,
): Server {
  return createServer({
    cert,
    key,
    ca,
    requestCert: ca !== undefined,
    ALPNProtocols: alpn,
    // Handshakes has its own timer. This one ignores bytes that were not read, and 0 means its default.
    handshakeTimeout: 2 ** 31 - 1,
  });
}

function tlsOptions(tls: TlsConnectOptions): ConnectionOptions {
  const { ca, cert, key, servername = "", alpn, insecureSkipVerify = false } = tls;
  return {
    ca,
    cert,
    key,
    ALPNProtocols: alpn,
    rejectUnauthorized: !insecureSkipVerify,
    // RFC 6066 §3: an IP address is not sent as a server name.
    servername: isIP(servername) ? "" : servername,
    checkServerIdentity: (_, certificate) => checkIdentity(servername, certificate),
  };
}

function checkIdentity(servername: string, certificate: PeerCertificate): Error | undefined {
  const error = checkServerIdentity(servername, certificate);
  if (error === undefined || isIP(servername) !== 6) return error;
  // Node 22 looks for an IPv6 address among the host names.
  const found = new X509Certificate(certificate.raw).checkIP(servername);
  return found === undefined ? error : undefined;
}
