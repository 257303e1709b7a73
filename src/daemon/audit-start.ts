/** What an audit log is made of: the node's key signs it, the first record says who runs and how the last run ended. */

import { Journal } from "../audit/journal.ts";
import { type AuditEvent, clip, type Fields } from "../audit/record.ts";
import type { Resumption } from "../audit/resume.ts";
import { toBase64 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import { VERSION } from "../control/version.ts";
import { AuditDirectory } from "../io/audit-directory.ts";
import { wallNow } from "../io/clock.ts";
import type { Identity } from "../io/state-directory.ts";
import { formatOverlayAddress, formatPilotAddress } from "../wire/address.ts";
import { type NodeId, networkId } from "../wire/ids.ts";
import { AuditLog } from "./audit-log.ts";
import type { UpOptions } from "./up-options.ts";

export interface AuditedNode {
  readonly node: NodeId;
  readonly hostname: string | undefined;
  readonly identity: Identity;
  readonly crypto: Crypto;
}

/** Undefined when none is to be kept. */
export function createAuditLog(options: UpOptions, own: AuditedNode): AuditLog | undefined {
  if (options.audit === undefined) return undefined;
  const { crypto, identity } = own;
  const { directory, keepFiles, maxFileBytes } = options.audit;
  const signer = {
    get publicKey() {
      return identity.publicKey;
    },
    sign: (message: Uint8Array) => crypto.ed25519Sign(identity.seed, message),
  };
  return new AuditLog({
    journal: new Journal({ crypto, signer, keepFiles, maxFileBytes }),
    directory: new AuditDirectory(directory),
    started: (found) => startRecord(options, own, found),
  });
}

function startRecord(options: UpOptions, own: AuditedNode, found: Resumption): AuditEvent {
  const at = wallNow();
  const address = { network: networkId(0), node: own.node };
  const fields: Fields = {
    version: VERSION,
    pid: process.pid,
    interface: options.tun,
    self: {
      node: own.node,
      pilot: formatPilotAddress(address),
      address: formatOverlayAddress(options.prefix, address),
      name: own.hostname === undefined ? null : clip(own.hostname),
      key: `SHA256:${toBase64(own.crypto.sha256(own.identity.publicKey)).replace(/=+$/, "")}`,
    },
    after: found.lastEvent === undefined ? "nothing" : found.lastEvent === "stop" ? "stop" : "crash",
    unsealed: found.unsealed,
  };
  return { event: "start", at, matters: true, fields: () => fields };
}

export function stopRecord(): AuditEvent {
  return { event: "stop", at: wallNow(), matters: true, fields: () => ({}) };
}
