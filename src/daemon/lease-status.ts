/** The limits of a peer's trust as the local API shows them. */
import type { Instant } from "../base/instant.ts";
import type { LeaseStatus } from "../control/api.ts";
import type { LeaseTerms } from "../control/trust-api.ts";
import type { Engine } from "../engine/engine.ts";
import type { Limits } from "../trust/lease.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import type { Terms } from "../wire/ask-text.ts";
import { parseServices, serviceWords } from "../wire/services.ts";

/** What holds between the two; null: no limits. */
export function leaseStatus(record: TrustRecord | undefined, engine: Engine, now: Instant): LeaseStatus | null {
  return statusOf(record, record && engine.leases.limitsOf(record.node), engine, now);
}

/** What this side alone grants; null: no limits. */
export function grantStatus(record: TrustRecord | undefined, engine: Engine, now: Instant): LeaseStatus | null {
  return statusOf(record, record?.lease, engine, now);
}

function statusOf(
  record: TrustRecord | undefined,
  limits: Limits | undefined,
  { leases }: Engine,
  now: Instant,
): LeaseStatus | null {
  if (record?.state !== "mutual" && record?.state !== "lease-ended") return null;
  if (limits === undefined) return null;
  const { inward, outward, endsAt } = limits;
  return {
    inward: inward === undefined ? null : serviceWords(inward),
    outward: outward === undefined ? null : serviceWords(outward),
    endsInS: endsAt === undefined ? null : Math.max(0, Math.ceil((endsAt - leases.time(now)) / 1000)),
    leftBytes: limits.leftBytes === undefined ? null : (leases.leftBytes(record.node) ?? null),
    endedBy: record.state === "lease-ended" ? (record.leaseEnd ?? null) : null,
  };
}

/** The ports were checked when the request came. */
export function termsOf({ ports, forMs, maxBytes }: LeaseTerms): Terms {
  return { services: ports === undefined ? undefined : parseServices(ports), durationMs: forMs, maxBytes };
}
