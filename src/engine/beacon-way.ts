/**
 * The way to the beacon: UDP, or TCP while UDP is blocked. Joins the choice with what carries it out: probes leave from
 * the tunnel socket, the edge opens and closes the connection, and the paths are told which endpoint stands for the
 * beacon now. The frames are the same on both ways.
 *
 * A probe names no node, so that the beacon does not take its source for where this node is before answers get through.
 */
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import type { Deadline, Instant } from "../base/instant.ts";
import { type BeaconTransport, TransportChoice } from "../beacon/transport-choice.ts";
import type { Transmit } from "../tunnel/link-table.ts";
import { BEACON, encodeDiscover } from "../wire/beacon.ts";
import { nodeId } from "../wire/ids.ts";

export interface BeaconWayParts {
  /** From now on this endpoint stands for the beacon. */
  use(endpoint: Endpoint, transport: BeaconTransport, now: Instant): void;
  transmit(transmit: Transmit): void;
  /** The edge shall open or close the connection; it reports with `handleTcpOpen` and `handleTcpClosed`. */
  wantTcp(wanted: boolean): void;
}

export class BeaconWay {
  readonly #udp: Endpoint | undefined;
  readonly #parts: BeaconWayParts;
  readonly #choice: TransportChoice | undefined;
  #tcp: Endpoint | undefined;

  /** `hasTcp`: the edge can open a connection to the beacon. */
  constructor(udp: Endpoint | undefined, hasTcp: boolean, parts: BeaconWayParts, now: Instant) {
    this.#udp = udp;
    this.#parts = parts;
    this.#choice = udp === undefined ? undefined : new TransportChoice(hasTcp, now);
  }

  get transport(): BeaconTransport {
    return this.#choice?.transport ?? "udp";
  }

  /** The beacon was asked over UDP for a while, and did not answer. */
  isUdpBlocked(now: Instant): boolean {
    return this.#choice?.isBlocked(now) ?? false;
  }

  /** A datagram that is neither a frame nor relayed, from anywhere. */
  handleDatagram(datagram: Uint8Array, source: Endpoint, now: Instant): void {
    if (datagram[0] === BEACON.DISCOVER_REPLY && sameEndpoint(source, this.#udp)) this.#choice?.handleUdpAnswer(now);
  }

  /** Something that UDP should have brought did not come, or the underlay changed. */
  handleSuspicion(now: Instant): void {
    this.#choice?.handleSuspicion(now);
  }

  /** A program sends, or somebody asks for a peer. */
  noteUse(now: Instant): void {
    this.#choice?.noteUse(now);
  }

  /** `endpoint` is the connection's near end. */
  handleTcpOpen(endpoint: Endpoint, now: Instant): void {
    this.#tcp = endpoint;
    this.#choice?.handleTcpOpen(now);
  }

  handleTcpClosed(now: Instant): void {
    this.#choice?.handleTcpClosed(now);
  }

  handleTimeout(now: Instant): void {
    this.#choice?.handleTimeout(now);
  }

  pollTimeout(): Deadline | undefined {
    return this.#choice?.pollTimeout();
  }

  /** Does what was decided. */
  settle(now: Instant): void {
    for (let action = this.#choice?.pollAction(); action !== undefined; action = this.#choice?.pollAction()) {
      switch (action.kind) {
        case "probe-udp":
          this.#parts.transmit({ to: this.#udp!, datagram: encodeDiscover(nodeId(0), false) });
          break;
        case "open-tcp":
          this.#parts.wantTcp(true);
          break;
        case "close-tcp":
          this.#parts.wantTcp(false);
          break;
        case "use":
          this.#parts.use(action.transport === "tcp" ? this.#tcp! : this.#udp!, action.transport, now);
      }
    }
  }
}
