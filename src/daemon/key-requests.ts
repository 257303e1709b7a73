/**
 * The node's own key and its entry at the registry, while the daemon runs. The order of a rotation is that of a stopped
 * daemon's (identity.ts): on disk, then at the registry, then in use. When the registry's answer is lost, the registry's
 * client asks it before it says anything else, and what was found arrives here later.
 */
import { equalBytes } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { Instant } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { PeerIdentity } from "../control/api.ts";
import type { KeyBackend, KeyReply, KeyRequest, KeyRotatedReply } from "../control/key-api.ts";
import type { Engine } from "../engine/engine.ts";
import type { RegistryConnection } from "../io/registry-connection.ts";
import type { StateDirectory } from "../io/state-directory.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { KeyRotationEvent } from "../registry/key-rotation.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { NodeId } from "../wire/ids.ts";
import { demandSecrecy, fingerprintOf, keyFacts } from "./identity.ts";
import type { OwnIdentity } from "./own-identity.ts";
import type { UpOptions } from "./up-options.ts";
import { Waiters } from "./waiters.ts";

export interface KeyRequestsParts {
  readonly options: UpOptions;
  readonly crypto: Crypto;
  readonly engine: Engine;
  readonly client: RegistryClient;
  readonly connection: RegistryConnection;
  readonly book: TrustBook;
  readonly state: StateDirectory;
  readonly ownKey: OwnIdentity;
  /** The key is not in the state directory, but handed over by the system at each start. */
  readonly isKeyLent: boolean;
  input<T>(act: (at: Instant) => T): T;
  identity(node: NodeId): PeerIdentity;
}

export class KeyRequests implements KeyBackend {
  readonly #parts: KeyRequestsParts;
  readonly #rotations = new Waiters<"rotation", KeyRotationEvent>();
  readonly #deregistrations = new Waiters<"deregistration", { readonly error?: string | undefined }>();

  constructor(parts: KeyRequestsParts) {
    this.#parts = parts;
  }

  async rotate(request: KeyRequest, signal: AbortSignal): Promise<KeyRotatedReply> {
    const { client, connection, state, crypto, ownKey } = this.#parts;
    this.#demandRegistry(request, "id rotate");
    if (this.#parts.isKeyLent) throw lentKey();
    if (state.preparedIdentity(crypto) !== undefined) throw unsettled("a rotation is under way already");
    const previousFingerprint = fingerprintOf(ownKey.publicKey, crypto);
    const next = state.prepareIdentity(crypto);
    const settled = this.#rotations.wait("rotation", PATIENCE_MS, signal);
    this.#parts.input(() => client.rotateKey(next));
    connection.pump();
    const event = await settled;
    if (event === undefined) throw unsettled("it did not answer in time");
    if (event.kind === "key-kept") throw refused(event.error, "The key stays as it was.");
    return { ...this.#facts(), previousFingerprint, peers: this.#trusted() };
  }

  async deregister(request: KeyRequest, signal: AbortSignal): Promise<KeyReply> {
    const { client, connection } = this.#parts;
    this.#demandRegistry(request, "deregister");
    const settled = this.#deregistrations.wait("deregistration", PATIENCE_MS, signal);
    this.#parts.input(() => client.deregister());
    connection.pump();
    const outcome = await settled;
    if (outcome === undefined) throw new PilotError("timeout", "The registry did not answer in time", "Try again.");
    if (outcome.error !== undefined) throw refused(outcome.error, "The node is still registered.");
    return this.#facts();
  }

  /** What came of a rotation, also of one whose caller is gone. */
  rotationEnded(event: KeyRotationEvent): void {
    const { state, ownKey, crypto, engine } = this.#parts;
    const prepared = state.preparedIdentity(crypto);
    if (event.kind === "key-kept") {
      if (prepared !== undefined) state.discardPreparedIdentity();
    } else {
      ownKey.adopt(event.identity);
      if (prepared !== undefined && equalBytes(prepared.publicKey, event.identity.publicKey)) {
        state.adoptPreparedIdentity();
      }
      // Not within the input that brought the news: this is one of its own.
      queueMicrotask(() => this.#parts.input((at) => engine.paths.reintroduce(at)));
    }
    this.#rotations.settle("rotation", event);
  }

  deregistrationEnded(outcome: { readonly error?: string | undefined }): void {
    this.#deregistrations.settle("deregistration", outcome);
  }

  #demandRegistry({ insecure }: KeyRequest, command: string): void {
    const { options, connection } = this.#parts;
    demandSecrecy({ registrySecurity: options.registrySecurity, insecure: insecure === true }, command);
    if (connection.state === "ok") return;
    throw new PilotError("registry_down", "The registry cannot be reached", "Try again when pilot-tun status says ok.");
  }

  #facts(): KeyReply {
    const { ownKey, crypto, engine } = this.#parts;
    return keyFacts(ownKey, engine.node, crypto);
  }

  #trusted(): KeyRotatedReply["peers"] {
    return [...this.#parts.book.nodesIn("mutual")].map((node) => {
      const { pilot, hostname } = this.#parts.identity(node);
      return { node, pilot, hostname };
    });
  }
}

function refused(error: string, consequence: string): PilotError {
  return new PilotError("registry_refused", `The registry refused: ${error}. ${consequence}`, "See pilot-tun status.");
}

function unsettled(reason: string): PilotError {
  return new PilotError(
    "rotation_unsettled",
    `Only the registry knows whether the key was rotated: ${reason}`,
    "Both keys are kept, and the daemon asks until it knows: pilot-tun status shows the key in use.",
  );
}

function lentKey(): PilotError {
  return new PilotError(
    "key_lent",
    "The key of this node comes from the system's credential store, where the daemon cannot change it",
    "Stop the daemon, rotate with the file in a state directory (pilot-tun id rotate --registry …), and store it anew.",
  );
}

const PATIENCE_MS = 8_000;
