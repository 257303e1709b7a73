/** The control API's answers about trust: each is one word of the operator to the engine, and what became of it. */
import type { Instant } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { PeerIdentity, PeerRequest } from "../control/api.ts";
import { MAX_LISTED_CUTS } from "../control/policy-api.ts";
import type {
  RevokeReply,
  TrustApproveRequest,
  TrustAskReply,
  TrustAskRequest,
  TrustBackend,
  TrustChangeReply,
  TrustListReply,
  TrustPendingReply,
} from "../control/trust-api.ts";
import type { Engine } from "../engine/engine.ts";
import { now, wallNow } from "../io/clock.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import { NO_TERMS } from "../wire/ask-text.ts";
import type { NodeId } from "../wire/ids.ts";
import { serviceWords } from "../wire/services.ts";
import { flowStatuses, placeOf, programStatus } from "./flow-status.ts";
import type { KeptFiles } from "./kept-files.ts";
import { grantStatus, leaseStatus, termsOf } from "./lease-status.ts";
import type { SocketOwners } from "./socket-owners.ts";
import { Waiters } from "./waiters.ts";

export interface TrustRequestParts {
  readonly engine: Engine;
  readonly book: TrustBook;
  readonly connection: { readonly state: string };
  readonly owners: Pick<SocketOwners, "find">;
  readonly files: Pick<KeptFiles, "demandWritten">;
  input<T>(act: (at: Instant) => T): T;
  /** Another node than this one. */
  find(text: string, signal: AbortSignal): Promise<NodeId>;
  identity(node: NodeId): PeerIdentity;
}

export class TrustRequests implements TrustBackend {
  readonly #parts: TrustRequestParts;
  readonly #acks = new Waiters<NodeId, Instant>();

  constructor(parts: TrustRequestParts) {
    this.#parts = parts;
  }

  /** The peer has heard that it was revoked. */
  acknowledged(node: NodeId): void {
    this.#acks.settle(node, now());
  }

  async ask(request: TrustAskRequest, signal: AbortSignal): Promise<TrustAskReply> {
    const { engine, connection, book, identity } = this.#parts;
    const node = await this.#parts.find(request.peer, signal);
    const record = this.#parts.input((at) =>
      engine.introductions.ask(node, request.reason ?? "", at, termsOf(request)),
    );
    if (record === undefined) throw bookFull();
    this.#demandWritten();
    const direct = engine.linkFacts(node)?.isUp === true;
    return {
      peer: identity(node),
      trust: record.state,
      lease: leaseStatus(book.get(node), engine, now()),
      waits: record.state === "asked" || (record.state === "mutual" && record.ask?.isAnswered === false),
      delivered: direct ? "direct" : connection.state === "ok" ? "registry" : "queued",
    };
  }

  async pending(): Promise<TrustPendingReply> {
    const wall = wallNow();
    const requests = [...this.#parts.book.records()].flatMap((record) => {
      if (record.request === undefined) return [];
      const { services, durationMs, maxBytes } = record.request.terms ?? NO_TERMS;
      return {
        ...this.#parts.identity(record.node),
        reason: record.request.reason,
        ports: services === undefined ? null : serviceWords(services),
        forS: durationMs === undefined ? null : durationMs / 1000,
        maxBytes: maxBytes ?? null,
        askedAgoS: Math.max(0, Math.round((wall - record.request.at) / 1000)),
        fingerprint: this.#fingerprint(record),
      };
    });
    return { requests };
  }

  async approve(request: TrustApproveRequest, signal: AbortSignal): Promise<TrustChangeReply> {
    const node = await this.#parts.find(request.peer, signal);
    return this.#answered(
      node,
      this.#parts.input((at) => this.#parts.engine.introductions.approve(node, at, termsOf(request))),
    );
  }

  async deny(request: PeerRequest, signal: AbortSignal): Promise<TrustChangeReply> {
    const node = await this.#parts.find(request.peer, signal);
    return this.#answered(
      node,
      this.#parts.input((at) => this.#parts.engine.introductions.deny(node, at)),
    );
  }

  async ls(): Promise<TrustListReply> {
    const wall = wallNow();
    const entries = [...this.#parts.book.records()].map((record) => ({
      ...this.#parts.identity(record.node),
      trust: record.state,
      lease: leaseStatus(record, this.#parts.engine, now()),
      sinceS: Math.max(0, Math.round((wall - record.since) / 1000)),
      epoch: record.epoch,
      fingerprint: this.#fingerprint(record),
    }));
    return { entries };
  }

  async revoke(request: PeerRequest, signal: AbortSignal): Promise<RevokeReply> {
    const { engine } = this.#parts;
    const node = await this.#parts.find(request.peer, signal);
    const wasUp = engine.linkFacts(node)?.isUp === true;
    const startedAt = now();
    const programs = this.#programsOf(node);
    const acknowledged = this.#acks.wait(node, ACK_PATIENCE_MS, signal);
    // The programs are told next; then the record is written to disk, and the command is done when it is there.
    const { outcome, elapsedMs } = this.#parts.input((at) => {
      const revoked = engine.introductions.revoke(node, at);
      return { outcome: revoked, elapsedMs: now() - startedAt };
    });
    if (outcome === undefined) throw bookFull();
    // Named now: with the acknowledgement the peer's link is gone.
    const listed = flowStatuses(outcome.cut.slice(0, MAX_LISTED_CUTS), this.#parts);
    const owners = await programs;
    const cut = listed.map((flow) => ({ ...flow, program: flow.program ?? programStatus(owners.get(flow.id)) }));
    const toldAt = wasUp ? await acknowledged : undefined;
    this.#demandWritten();
    return {
      peer: this.#parts.identity(node),
      epoch: outcome.record.epoch,
      cutFlows: outcome.cut.length,
      cut,
      elapsedMs,
      peerTold: toldAt !== undefined ? "acknowledged" : wasUp ? "sent" : "unreachable",
      toldAfterMs: toldAt === undefined ? null : toldAt - startedAt,
    };
  }

  // ---- inside

  /** By flow. The sockets are looked for at once, before they are cut; whose they are then takes its time. */
  async #programsOf(node: NodeId): Promise<ReadonlyMap<string, SocketOwner | undefined>> {
    const { engine, owners } = this.#parts;
    const flows = engine.admission.list(now()).filter((flow) => engine.admission.nodeOf(flow) === node);
    const some = flows.slice(0, MAX_NAMED_PROGRAMS);
    const found = await owners.find(some.map((flow) => placeOf(flow, engine.prefix)));
    return new Map(some.map((flow, index) => [flow.id, found[index]]));
  }

  /** What is answered as done must be there after a crash. */
  #demandWritten(): void {
    this.#parts.files.demandWritten("trust.json");
  }

  #answered(node: NodeId, record: TrustRecord | undefined): TrustChangeReply {
    if (record !== undefined) {
      this.#demandWritten();
      return this.#change(node);
    }
    const { hostname, pilot } = this.#parts.identity(node);
    throw new PilotError(
      "nothing_pending",
      `${hostname ?? pilot} has not asked`,
      "See who has: pilot-tun trust pending. To ask it yourself: pilot-tun trust ask PEER.",
    );
  }

  #change(node: NodeId): TrustChangeReply {
    const { book, engine, identity } = this.#parts;
    return { peer: identity(node), trust: book.stateOf(node), lease: grantStatus(book.get(node), engine, now()) };
  }

  #fingerprint(record: TrustRecord): string | null {
    return this.#parts.engine.admission.fingerprintOf(record) ?? null;
  }
}

function bookFull(): PilotError {
  return new PilotError(
    "trust_book_full",
    "No more peers can be recorded",
    "Remove records of peers you no longer need.",
  );
}

const ACK_PATIENCE_MS = 1_500;
/** Each costs microseconds before the cut. */
const MAX_NAMED_PROGRAMS = 200;
