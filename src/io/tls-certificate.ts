/**
 * The certificate a rendezvous shows, for its registry and its compat endpoint alike: from files that an operator keeps,
 * or one of its own making, which stays in the state directory so that pinned fingerprints stay true.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { getCACertificates } from "node:tls";
import { PilotError } from "../base/pilot-error.ts";
import { wallNow } from "./clock.ts";
import { makeSelfSigned } from "./self-signed.ts";

export type TlsSource =
  | { readonly kind: "files"; readonly certFile: string; readonly keyFile: string }
  /** `names`: host names and addresses for a new certificate; one that is there already is kept as it is. */
  | { readonly kind: "self-signed"; readonly stateDir: string; readonly names: readonly string[] };

export interface TlsCertificate {
  /** PEM, with the chain if there is one. */
  readonly cert: string;
  /** PEM. */
  readonly key: string;
  /** SHA-256 of the certificate in lower-case hex, for clients that pin it. */
  readonly fingerprint: string;
}

/** Throws a PilotError `tls_certificate` that names the file. */
export function loadTlsCertificate(source: TlsSource): TlsCertificate {
  if (source.kind === "files") return checked(source.certFile, source.keyFile);
  const certFile = join(source.stateDir, "tls-cert.pem");
  const keyFile = join(source.stateDir, "tls-key.pem");
  if (!existsSync(certFile) || !existsSync(keyFile)) {
    const made = makeSelfSigned(source.names, wallNow());
    write(keyFile, made.key, 0o600);
    write(certFile, made.certificate, 0o644);
  }
  return checked(certFile, keyFile);
}

/** Hex without colons and in lower case; undefined for what is no SHA-256 fingerprint. */
export function parseFingerprint(text: string): string | undefined {
  const hex = text
    .replace(/^sha-?256[:=]/i, "")
    .replaceAll(":", "")
    .toLowerCase();
  return /^[0-9a-f]{64}$/.test(hex) ? hex : undefined;
}

/** Those that Node brings and those of this system, where an operator adds a company's own. Read once. */
export function trustedAuthorities(): string[] {
  authorities ??= [...new Set([...getCACertificates("default"), ...getCACertificates("system")])];
  return authorities;
}

let authorities: string[] | undefined;

export function fingerprintOf(certificate: X509Certificate): string {
  return certificate.fingerprint256.replaceAll(":", "").toLowerCase();
}

function checked(certFile: string, keyFile: string): TlsCertificate {
  const cert = read(certFile);
  const key = read(keyFile);
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(cert);
  } catch (cause) {
    throw unusable(`${certFile} holds no certificate in PEM form`, cause);
  }
  let isPair: boolean;
  try {
    isPair = certificate.checkPrivateKey(createPrivateKey(key));
  } catch (cause) {
    throw unusable(`${keyFile} holds no private key in PEM form without a password`, cause);
  }
  if (!isPair) throw unusable(`The key in ${keyFile} does not belong to the certificate in ${certFile}`);
  return { cert, key, fingerprint: fingerprintOf(certificate) };
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw unusable(`Cannot read ${file}: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

function write(file: string, text: string, mode: number): void {
  try {
    writeFileSync(file, text, { mode });
  } catch (cause) {
    throw unusable(`Cannot write ${file}: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

function unusable(message: string, cause?: unknown): PilotError {
  return new PilotError(
    "tls_certificate",
    message,
    "Give --tls-cert and --tls-key files in PEM form, or --tls-self-signed.",
    cause,
  );
}
