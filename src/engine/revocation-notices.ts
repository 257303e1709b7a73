/**
 * Tells a peer that it was revoked, that its lease is over, or that a membership which stood for our consent is (by a hello that does not
 * consent: its own ask stays open), so that its programs learn it now and not by silence: inside the session, and
 * on port 444 for a plain agent. Repeated with growing pauses until acknowledged, and as long as there is no session one is
 * tried for in the same way; a peer that is away hears it at the latest when it next comes with a key exchange. Once it has acknowledged, the link closes and the node is silent to it.
 */
import { after, type Instant } from "../base/instant.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { mustBeTold, type TrustRecord } from "../trust/trust-record.ts";
import type { Link } from "../tunnel/link.ts";
import type { RevocationReason } from "../wire/bridge.ts";
import type { NodeId } from "../wire/ids.ts";
import type { BridgeConversation } from "./bridge-conversation.ts";

export class RevocationNotices {
  readonly #book: TrustBook;
  readonly #bridge: BridgeConversation;
  /** Key: node. Bound: revoked peers with a link; removed when acknowledged. */
  readonly #sent = new Map<NodeId, number>();

  constructor(book: TrustBook, bridge: BridgeConversation) {
    this.#book = book;
    this.#bridge = bridge;
  }

  /** A new session with a peer that may not know yet, or time to say it again. */
  send(link: Link, now: Instant): void {
    const record = this.#book.get(link.node);
    if (record === undefined || !mustBeTold(record)) return;
    const sent = this.#sent.get(link.node) ?? 0;
    this.#sent.set(link.node, sent + 1);
    if (link.isUp && sent > 0) link.probeEveryWay(now); // the way that it had may be none any more
    if (!link.isUp) link.connect(now);
    else if (record.state === "none") this.#bridge.sayHello(link, now);
    else this.#bridge.sendRevoked(link, reasonOf(record), now);
    link.schedule("notice-retry", after(now, Math.min(FIRST_PAUSE_MS * 2 ** sent, LONGEST_PAUSE_MS)));
  }

  /** A session begins, or nothing is left to say. */
  reset(node: NodeId): void {
    this.#sent.delete(node);
  }
}

function reasonOf({ state, leaseEnd }: TrustRecord): RevocationReason {
  if (state !== "lease-ended") return "revoked";
  return leaseEnd === "bytes" ? "lease-bytes" : "lease-time";
}

const FIRST_PAUSE_MS = 200;
/** A peer that went for good is worth no more; one that only heard nothing must not believe for ever. */
const LONGEST_PAUSE_MS = 3_600_000;
