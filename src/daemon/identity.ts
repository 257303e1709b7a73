/**
 * What an operator does with a node's identity while its daemon is not running: show it, rotate its key, take the node
 * out of the registry.
 *
 * Rotation never lets the registry hold a key that is not on disk: the new key is written beside the old one first, the
 * registry is told by a request that the old key signs, and only its word moves the new file into the old one's place.
 * After a crash or a lost answer both are there, and `settleRotation` asks the registry which of them is the node's
 * before anything registers: a registration with the wrong one would make another node.
 *
 * The signed texts of both requests cover neither the time nor the new key (pilot protocol §11.11): who sees one can
 * repeat it for ever with a key of his own. So they do not go over plain TCP unless the operator insists.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { equalBytes, toBase64, utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { KeyReply } from "../control/key-api.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { callRegistry } from "../io/registry-call.ts";
import { type Identity, StateDirectory } from "../io/state-directory.ts";
import { formatPilotAddress } from "../wire/address.ts";
import { type NodeId, networkId } from "../wire/ids.ts";
import { encodeKey, publicKeyField, type RegistryMessage, signedText } from "../wire/registry.ts";
import { NodeMemory } from "./node-memory.ts";
import { lockState } from "./state-lock.ts";
import type { HostPort, RegistrySecurity } from "./up-options.ts";

export interface RegistryAccess {
  readonly registry: HostPort;
  readonly registrySecurity: RegistrySecurity;
  /** Send over plain TCP what anybody on the way could repeat. */
  readonly insecure: boolean;
}

export interface RotatedFacts extends KeyReply {
  readonly previousFingerprint: string;
}

export function showIdentity(stateDir: string): KeyReply {
  if (!existsSync(join(stateDir, "identity.json"))) {
    throw new PilotError(
      "no_identity",
      `There is no identity in ${stateDir}`,
      "Run pilot-tun up once, or give --state.",
    );
  }
  const state = new StateDirectory(stateDir);
  const crypto = new NodeCrypto();
  return keyFacts(state.loadIdentity(crypto), NodeMemory.load(state).node, crypto);
}

export async function rotateKey(stateDir: string, access: RegistryAccess): Promise<RotatedFacts> {
  demandSecrecy(access, "id rotate");
  const crypto = new NodeCrypto();
  const { state, node } = openRegistered(stateDir);
  await settleRotation(state, node, crypto, access);
  const current = state.loadIdentity(crypto);
  const next = state.prepareIdentity(crypto);
  const reply = await ask(access, {
    type: "rotate_key",
    node_id: node,
    new_public_key: encodeKey(next.publicKey),
    signature: encodeKey(crypto.ed25519Sign(current.seed, utf8(signedText.rotateKey(node)))),
  }).catch((cause) => throwUnsettled(cause));
  if (reply["type"] !== "rotate_key_ok") {
    state.discardPreparedIdentity();
    throw refusedBy(reply, "The key stays as it was.");
  }
  state.adoptPreparedIdentity();
  const previousFingerprint = fingerprintOf(current.publicKey, crypto);
  return { ...keyFacts(next, node, crypto), previousFingerprint };
}

/** The number and the key stay; the next `up` registers the node again. */
export async function deregister(stateDir: string, access: RegistryAccess): Promise<KeyReply> {
  demandSecrecy(access, "deregister");
  const crypto = new NodeCrypto();
  const { state, node } = openRegistered(stateDir);
  await settleRotation(state, node, crypto, access);
  const identity = state.loadIdentity(crypto);
  const signature = encodeKey(crypto.ed25519Sign(identity.seed, utf8(signedText.deregister(node))));
  const reply = await ask(access, { type: "deregister", node_id: node, signature }).catch((cause) => {
    throw registryDown(cause);
  });
  if (reply["type"] !== "deregister_ok") throw refusedBy(reply, "The node is still registered.");
  return keyFacts(identity, node, crypto);
}

/** After a rotation that was broken off: the registry's word decides which key is the node's. No-op otherwise. */
export async function settleRotation(
  state: StateDirectory,
  node: NodeId | undefined,
  crypto: NodeCrypto,
  access: Omit<RegistryAccess, "insecure">,
): Promise<void> {
  const next = state.preparedIdentity(crypto);
  if (next === undefined || node === undefined) return;
  const reply = await ask(access, { type: "lookup", node_id: node }).catch((cause) => throwUnsettled(cause));
  const registered = publicKeyField(reply, "public_key");
  if (registered !== undefined && equalBytes(registered, next.publicKey)) return state.adoptPreparedIdentity();
  const current = state.loadIdentity(crypto);
  if (registered !== undefined && equalBytes(registered, current.publicKey)) return state.discardPreparedIdentity();
  throw new PilotError(
    "rotation_unsettled",
    `A key rotation was broken off, and the registry names neither of the two keys for node ${node}`,
    `Restore identity.json from a backup, or remove identity-next.json beside it to go on with the older key.`,
  );
}

function ask(access: Omit<RegistryAccess, "insecure">, request: RegistryMessage): Promise<RegistryMessage> {
  return callRegistry(access.registry, access.registrySecurity, (asked) => asked(request));
}

function openRegistered(stateDir: string): { state: StateDirectory; node: NodeId } {
  showIdentity(stateDir); // before anything is made in a folder that holds no identity
  const state = new StateDirectory(stateDir);
  lockState(stateDir);
  const { node } = NodeMemory.load(state);
  if (node !== undefined) return { state, node };
  throw new PilotError("not_registered", "This node was never registered", "Run pilot-tun up once.");
}

export function demandSecrecy(
  { registrySecurity, insecure }: Pick<RegistryAccess, "registrySecurity" | "insecure">,
  command: string,
): void {
  if (registrySecurity.kind !== "plain" || insecure) return;
  throw new PilotError(
    "insecure_registry",
    `${command} over plain TCP would let everybody on the way repeat it, with a key of his own`,
    "Give --registry-tls or --registry-fingerprint; or --insecure when the way to the registry is safe by other means.",
  );
}

export function keyFacts({ publicKey }: Identity, node: NodeId | undefined, crypto: Pick<Crypto, "sha256">): KeyReply {
  return {
    publicKey: toBase64(publicKey),
    fingerprint: fingerprintOf(publicKey, crypto),
    node: node ?? null,
    pilot: node === undefined ? null : formatPilotAddress({ network: networkId(0), node }),
  };
}

export function fingerprintOf(publicKey: Uint8Array, crypto: Pick<Crypto, "sha256">): string {
  return `SHA256:${toBase64(crypto.sha256(publicKey)).replace(/=+$/, "")}`;
}

function refusedBy(reply: RegistryMessage, consequence: string): PilotError {
  const error = typeof reply["error"] === "string" ? reply["error"] : "no reason given";
  return new PilotError("registry_refused", `The registry refused: ${error}. ${consequence}`, "See pilot-tun id show.");
}

function registryDown(cause: unknown): PilotError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PilotError("registry_down", `The registry did not answer: ${reason}`, "Try again when it is back.", cause);
}

function throwUnsettled(cause: unknown): never {
  const reason = cause instanceof Error ? cause.message : String(cause);
  throw new PilotError(
    "rotation_unsettled",
    `Only the registry knows whether the key was rotated, and it did not say: ${reason}`,
    "Try again when it is back: both keys are kept, and its word decides.",
    cause,
  );
}
