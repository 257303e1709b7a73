/** When what changes in the engine is written to the files of trust and of what was learned. */
import type { Engine } from "../engine/engine.ts";
import { now } from "../io/clock.ts";
import type { KeptFiles } from "./kept-files.ts";
import type { HeardName, NodeMemory } from "./node-memory.ts";
import { PacedWrite } from "./paced-write.ts";
import type { TrustFile } from "./trust-file.ts";

export interface KeptStateParts {
  readonly engine: Engine;
  readonly trust: TrustFile;
  readonly memory: NodeMemory;
  readonly files: KeptFiles;
}

export class KeptState {
  readonly #parts: KeptStateParts;
  readonly #trust: PacedWrite;
  readonly #peers: PacedWrite;

  constructor(parts: KeptStateParts) {
    const { engine, trust, memory, files } = parts;
    this.#parts = parts;
    this.#trust = new PacedWrite(() => files.keep("trust.json", () => trust.save(engine.leases.time(now()))));
    this.#peers = new PacedWrite(() => {
      const [endpoints, kinds] = [engine.knownEndpoints(), engine.knownKinds()];
      this.#remember(() => memory.rememberPeers({ endpoints, kinds, tags: engine.gate.tags.toStored() }));
    });
  }

  /** On disk when this returns, as far as the disk takes it, unless it may wait. */
  trustChanged(mayWait: boolean): void {
    if (mayWait) this.#trust.soon();
    else this.#trust.atOnce();
  }

  /** Endpoints, kinds or tags: hints for the next start. */
  peersLearned(): void {
    this.#peers.soon();
  }

  networksChanged(): void {
    const { engine, memory } = this.#parts;
    this.#remember(() => memory.rememberNetworks(engine.networks.toStored()));
  }

  namesHeard(names: readonly HeardName[]): void {
    this.#remember(() => this.#parts.memory.rememberNames(names));
  }

  /** What waits is written; nothing may change any more. */
  close(): void {
    this.#trust.close();
    this.#peers.close();
  }

  #remember(change: () => void): void {
    const { files, memory } = this.#parts;
    files.keep("node.json", change, () => memory.write());
  }
}
