/**
 * Everything that decides about flows, made and joined in one place: the policy, what is known for it (flow-facts.ts,
 * peer-tags.ts, owner-questions.ts), what it decides (admission.ts), what keeps flows to it (governor.ts), and what peers may
 * ask about it (explanations.ts).
 */
import type { Crypto } from "../base/crypto.ts";
import { type Deadline, earlier, type Instant, type WallClock } from "../base/instant.ts";
import type { FlowTable } from "../policy/flow-table.ts";
import { Policy } from "../policy/policy.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { RegistryEvent } from "../registry/events.ts";
import type { Routes } from "../routing/routes.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { Admission } from "./admission.ts";
import type { AuditTrail } from "./audit-trail.ts";
import type { BridgeConversation } from "./bridge-conversation.ts";
import { CarriedFlows } from "./carried-flows.ts";
import { type ExplanationEvent, Explanations } from "./explanations.ts";
import { FlowFactsFinder } from "./flow-facts.ts";
import { Governor } from "./governor.ts";
import type { Leases } from "./leases.ts";
import type { Networks } from "./networks.ts";
import { OwnerQuestions } from "./owner-questions.ts";
import { PeerTags, type StoredTags } from "./peer-tags.ts";
import type { Refusals } from "./refusals.ts";
import { RelatedPackets } from "./related-packets.ts";

export interface GateParts {
  readonly flows: FlowTable;
  readonly links: LinkTable;
  readonly routes: Routes;
  readonly refusals: Refusals;
  readonly trust: TrustBook;
  readonly registry: RegistryClient;
  readonly crypto: Crypto;
  readonly leases: Leases;
  readonly networks: Networks;
  wall(now: Instant): WallClock;
  /** The time of flows. */
  steadyS(now: Instant): number;
  readonly bridge: BridgeConversation;
  /** Tags of peers are otherwise than they were; or something about an explanation. */
  emit(event: { readonly kind: "tags-changed" } | ExplanationEvent): void;
  /** Who writes down what is decided; undefined: nobody. */
  createTrail(policy: Policy): AuditTrail | undefined;
}

export class Gate {
  readonly admission: Admission;
  readonly governor: Governor;
  readonly related: RelatedPackets;
  readonly owners = new OwnerQuestions();
  readonly tags: PeerTags;
  readonly trail: AuditTrail | undefined;
  readonly explanations: Explanations;
  readonly carried: CarriedFlows;

  constructor(parts: GateParts, storedTags: StoredTags) {
    const policy = new Policy();
    const changed = (now: Instant) => {
      if (policy.asksForTags) this.admission.handleChangedFacts(now);
      parts.emit({ kind: "tags-changed" });
    };
    this.tags = new PeerTags({ ...parts, changed }, storedTags);
    this.governor = new Governor({ ...parts, policy });
    this.related = new RelatedPackets(parts);
    this.trail = parts.createTrail(policy);
    const facts = new FlowFactsFinder({ ...parts, tags: this.tags });
    this.admission = new Admission({
      ...parts,
      policy,
      facts,
      tags: this.tags,
      governor: this.governor,
      owners: this.owners,
      trail: this.trail,
    });
    this.explanations = new Explanations({ ...parts, admission: this.admission });
    this.carried = new CarriedFlows({ ...parts, admission: this.admission });
  }

  handleRegistry(event: RegistryEvent, now: Instant): void {
    this.tags.handleRegistry(event, now);
  }

  handleTimeout(now: Instant): void {
    this.admission.handleTimeout(now);
    this.owners.handleTimeout(now);
    this.tags.handleTimeout(now);
    this.trail?.handleTimeout(now);
  }

  pollTimeout(): Deadline | undefined {
    const facts = earlier(this.owners.pollTimeout(), this.tags.pollTimeout());
    return earlier(this.admission.pollTimeout(), earlier(facts, this.trail?.pollTimeout()));
  }
}
