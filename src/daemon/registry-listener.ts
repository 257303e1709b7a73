/**
 * The registry on its sockets: reads requests, and puts the commit between a request and its reply.
 */

import type { Endpoint } from "../base/endpoint.ts";
import { Histogram } from "../base/histogram.ts";
import { PilotError } from "../base/pilot-error.ts";
import { now, wallNow } from "../io/clock.ts";
import { type FrameConversation, FrameServer, type FrameServerLimits } from "../io/frame-server.ts";
import type { SqliteStore } from "../io/sqlite-store.ts";
import type { TlsCertificate } from "../io/tls-certificate.ts";
import { type RegistryLimits, RegistryServer } from "../rendezvous/registry.ts";
import { Conversation } from "../rendezvous/request-context.ts";
import { binaryRequest, jsonRequest, type RequestFrame } from "../rendezvous/request-frame.ts";
import { MAX_FRAME_BYTES } from "../wire/registry.ts";
import { BINARY_PREAMBLE } from "../wire/registry-binary.ts";
import type { BeaconPort } from "./beacon-socket.ts";
import { bindError } from "./bind-error.ts";
import { VerifiedSignatures } from "./verified-signatures.ts";

export interface RegistryListenerOptions {
  readonly registry: Endpoint;
  readonly stateDir: string;
  readonly adminToken?: string;
  readonly inviteLifeMs?: number;
  readonly registryLimits?: Partial<RegistryLimits>;
  readonly connectionLimits?: Partial<FrameServerLimits>;
  readonly registryTlsOnly?: boolean;
  readonly onProblem?: (problem: PilotError) => void;
}

export class RegistryListener {
  requests = 0;
  commitFailures = 0;
  readonly commitSeconds = new Histogram(COMMIT_SECONDS);
  readonly #options: RegistryListenerOptions;
  readonly #store: SqliteStore;
  readonly #server: RegistryServer;
  readonly #frames: FrameServer;
  readonly #beacon: Pick<BeaconPort, "notify" | "notePresence">;
  /** A request of this turn failed half way: nothing of the turn may be committed. */
  #failure: unknown;

  constructor(
    options: RegistryListenerOptions,
    store: SqliteStore,
    certificate: TlsCertificate | undefined,
    beacon: Pick<BeaconPort, "notify" | "notePresence">,
  ) {
    this.#options = options;
    this.#store = store;
    this.#beacon = beacon;
    this.#server = new RegistryServer({
      store,
      crypto: new VerifiedSignatures(),
      startedAt: now(),
      startedAtWall: wallNow(),
      rendezvousId: store.rendezvousId,
      ...(options.adminToken === undefined ? {} : { adminToken: options.adminToken }),
      ...(options.inviteLifeMs === undefined ? {} : { inviteLifeMs: options.inviteLifeMs }),
      ...(options.registryLimits === undefined ? {} : { limits: options.registryLimits }),
    });
    this.#frames = new FrameServer({
      listen: options.registry,
      maxFrameBytes: MAX_FRAME_BYTES,
      tls: certificate && { ...certificate, only: options.registryTlsOnly ?? false },
      openConversation: (sourceIp) => this.#open(new Conversation(sourceIp)),
      mustSettle: () => this.#store.isDirty || this.#failure !== undefined,
      settle: () => this.#settle(),
      ...(options.connectionLimits === undefined ? {} : { limits: options.connectionLimits }),
    });
  }

  get connectionCount(): number {
    return this.#frames.connectionCount;
  }

  get isListening(): boolean {
    return this.#frames.isListening;
  }

  get requestCounts() {
    return this.#server.counts.list();
  }

  async listen(): Promise<Endpoint> {
    try {
      return await this.#frames.listen();
    } catch (cause) {
      throw bindError("registry", "TCP", this.#options.registry, cause);
    }
  }

  close(): Promise<void> {
    return this.#frames.close();
  }

  #open(conversation: Conversation): FrameConversation {
    let isBinary = false;
    return {
      get isThrottled(): boolean {
        return conversation.isThrottled;
      },
      skipPreamble: (peek) => {
        const first = peek(BINARY_PREAMBLE.length);
        if (first === undefined) return undefined;
        isBinary = BINARY_PREAMBLE.every((byte, index) => first[index] === byte);
        return isBinary ? BINARY_PREAMBLE.length : 0;
      },
      answer: (payload) => this.#answer(isBinary ? binaryRequest(payload) : jsonRequest(payload), conversation),
    };
  }

  #answer(frame: RequestFrame, conversation: Conversation): string | Uint8Array | undefined {
    this.requests++;
    this.#beacon.notePresence(conversation.sourceIp, conversation.sourceKey);
    try {
      return this.#server.handleFrame(frame, conversation, now(), wallNow());
    } catch (cause) {
      // The database refused a change (a full disk, an I/O error); the rules themselves do not throw.
      this.#failure = cause;
      return undefined;
    }
  }

  #commit(): void {
    if (!this.#store.isDirty) return;
    const startedAt = now();
    this.#store.commit();
    this.commitSeconds.observe((now() - startedAt) / 1000);
  }

  #settle(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    try {
      if (failure !== undefined) throw failure;
      this.#commit();
    } catch (cause) {
      this.commitFailures++;
      this.#store.rollback();
      this.#options.onProblem?.(storageError(this.#options.stateDir, cause));
      throw cause;
    }
    for (let node = this.#server.pollNotice(); node !== undefined; node = this.#server.pollNotice()) {
      this.#beacon.notify(node);
    }
  }
}

/** From a flush that a disk's cache takes at once to a disk in trouble. */
const COMMIT_SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1];

function storageError(stateDir: string, cause: unknown): PilotError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PilotError(
    "state_unwritable",
    `Could not store a request in ${stateDir}: ${reason}; the client was cut off and will ask again`,
    "Free disk space there, and check the disk.",
    cause,
  );
}
