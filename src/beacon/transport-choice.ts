/**
 * Which way to the beacon: UDP, or TCP while UDP is blocked. It only decides; the caller sends the probes, opens and
 * closes the connection, and switches when told to.
 *
 *   udp ──(suspicion: silence)──► udp, probing ──(no answer for BLOCKED_MS)──► udp, opening TCP ──(open)──► tcp
 *    ▲                                │ answer                                   │ answer                   │
 *    └────────────────────────────────┴───────────────────────────────────────────┴──(answers in a row)─────┘
 *
 * Invariant: while UDP is not known to work, a probe is always under way, so that both a block and its end are found
 * without traffic. While the node is in use, and shortly after, silence is doubted within two seconds: a program that has
 * nothing to send must hear all the same; of an idle node within eight, for a beacon has many of those. A way back that fails
 * soon raises the number of answers that the next way back takes.
 */
import { after, type Deadline, type Instant, instant } from "../base/instant.ts";

export type BeaconTransport = "udp" | "tcp";

export type TransportAction =
  /** Send a discover over UDP; report the answer with `handleUdpAnswer`. */
  | { readonly kind: "probe-udp" }
  /** Open the connection; report with `handleTcpOpen` or `handleTcpClosed`. */
  | { readonly kind: "open-tcp" }
  | { readonly kind: "close-tcp" }
  | { readonly kind: "use"; readonly transport: BeaconTransport };

export class TransportChoice {
  #transport: BeaconTransport = "udp";
  readonly #canUseTcp: boolean;
  #heardAt: Instant;
  /** Until then silence is short. */
  #inUseUntil: Instant;
  /** Since when UDP has been silent although asked; undefined while it is not in doubt. */
  #doubtSince: Instant | undefined;
  #probeAt: Instant | undefined;
  #probes = 0;
  #answers = 0;
  #answersNeeded = 1;
  #leftTcpAt: Instant | undefined;
  #tcp: "closed" | "opening" | "open" = "closed";
  #tcpFailures = 0;
  #retryTcpAt: Instant;
  /** Bounded: one input adds at most three, and the caller drains after each. */
  readonly #actions: TransportAction[] = [];

  /** UDP is in doubt from the start: the first answer ends that. A start counts as use. */
  constructor(canUseTcp: boolean, now: Instant) {
    this.#canUseTcp = canUseTcp;
    this.#heardAt = now;
    this.#inUseUntil = after(now, IN_USE_MS);
    this.#retryTcpAt = now;
    this.handleSuspicion(now);
  }

  get transport(): BeaconTransport {
    return this.#transport;
  }

  /** UDP to the beacon was asked for BLOCKED_MS and did not answer. */
  isBlocked(now: Instant): boolean {
    return this.#transport === "tcp" || (this.#doubtSince !== undefined && after(this.#doubtSince, BLOCKED_MS) <= now);
  }

  /** The beacon answered over UDP. */
  handleUdpAnswer(now: Instant): void {
    this.#heardAt = now;
    this.#answers++;
    if (this.#transport === "tcp" && this.#answers < this.#answersNeeded) return;
    this.#doubtSince = undefined;
    this.#probeAt = undefined;
    if (this.#tcp !== "closed") this.#actions.push({ kind: "close-tcp" });
    this.#tcp = "closed";
    if (this.#transport === "udp") return;
    this.#leftTcpAt = now;
    this.#use("udp");
  }

  /** Something that should have been answered was not, or the underlay changed: find out. */
  handleSuspicion(now: Instant): void {
    if (this.#doubtSince !== undefined || this.#transport === "tcp") return;
    this.#doubtSince = now;
    this.#probes = 0;
    this.#answers = 0;
    this.#retryTcpAt = now;
    this.#tcpFailures = 0;
    this.#probe(now);
  }

  /** A program sends, or somebody asks for a peer. */
  noteUse(now: Instant): void {
    this.#inUseUntil = after(now, IN_USE_MS);
  }

  handleTcpOpen(now: Instant): void {
    if (this.#tcp !== "opening") return;
    this.#tcp = "open";
    this.#tcpFailures = 0;
    const cameBackSoon = this.#leftTcpAt !== undefined && after(this.#leftTcpAt, FLAP_MS) > now;
    this.#answersNeeded = cameBackSoon ? Math.min(this.#answersNeeded * 2, MAX_ANSWERS_NEEDED) : 1;
    this.#answers = 0;
    this.#use("tcp");
  }

  /** It could not be opened, or it ended. Both ways are tried again; TCP stays chosen, for UDP is no better. */
  handleTcpClosed(now: Instant): void {
    if (this.#tcp === "closed") return;
    this.#tcp = "closed";
    this.#retryTcpAt = after(now, Math.min(TCP_RETRY_MS * 2 ** this.#tcpFailures, MAX_TCP_RETRY_MS));
    this.#tcpFailures++;
    this.#answersNeeded = 1;
  }

  handleTimeout(now: Instant): void {
    if (this.#doubtSince === undefined) {
      if (now >= this.#silentAt()) this.handleSuspicion(now);
      return;
    }
    if (this.#probeAt !== undefined && now >= this.#probeAt) this.#probe(now);
    if (this.#mayOpenTcp() && now >= this.#openTcpAt(this.#doubtSince)) {
      this.#tcp = "opening";
      this.#actions.push({ kind: "open-tcp" });
    }
  }

  pollAction(): TransportAction | undefined {
    return this.#actions.shift();
  }

  pollTimeout(): Deadline {
    if (this.#doubtSince === undefined) return { at: this.#silentAt(), reason: "beacon silence" };
    const probeAt = this.#probeAt!;
    if (!this.#mayOpenTcp()) return { at: probeAt, reason: "udp probe" };
    const openAt = this.#openTcpAt(this.#doubtSince);
    return openAt < probeAt ? { at: openAt, reason: "udp blocked" } : { at: probeAt, reason: "udp probe" };
  }

  #silentAt(): Instant {
    const soon = after(this.#heardAt, SHORT_SILENCE_MS);
    return soon < this.#inUseUntil ? soon : after(this.#heardAt, SILENCE_MS);
  }

  #mayOpenTcp(): boolean {
    return this.#canUseTcp && this.#tcp === "closed";
  }

  #openTcpAt(doubtSince: Instant): Instant {
    return instant(Math.max(this.#retryTcpAt, after(doubtSince, BLOCKED_MS)));
  }

  #probe(now: Instant): void {
    // An answer that is missing for a whole interval breaks the row.
    if (this.#transport === "tcp" && now >= after(this.#heardAt, PROBE_MS + PROBE_SLACK_MS)) this.#answers = 0;
    this.#actions.push({ kind: "probe-udp" });
    this.#probeAt = after(now, FIRST_PROBES_MS[this.#probes] ?? PROBE_MS);
    this.#probes++;
  }

  #use(transport: BeaconTransport): void {
    this.#transport = transport;
    this.#actions.push({ kind: "use", transport });
  }
}

/** Of an idle node, which then finds a block within eleven seconds: a probe of 33 bytes every eight, one for each NAT timer. */
const SILENCE_MS = 8_000;
/** With the connection's own second it all stays within 5 s. */
const SHORT_SILENCE_MS = 2_000;
const BLOCKED_MS = 2_000;
/** Thirty probes of 33 bytes after the last packet of a program, at most. */
const IN_USE_MS = 60_000;
/** Seven probes must be lost for a wrong verdict. */
const FIRST_PROBES_MS = [250, 250, 250, 300, 300, 300];
const PROBE_MS = 2_000;
const PROBE_SLACK_MS = 500;
const TCP_RETRY_MS = 500;
const MAX_TCP_RETRY_MS = 30_000;
/** Back on TCP within this time of leaving it: UDP works only now and then. */
const FLAP_MS = 60_000;
const MAX_ANSWERS_NEEDED = 16;
