/**
 * The beacon's second port: lets nodes see whether their NAT maps and filters by the other side's port or address
 * (RFC 4787 §4.1, §5). It answers probes and discoveries, learns nothing, and relays nothing.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import type { Endpoint } from "../base/endpoint.ts";
import { now } from "../io/clock.ts";
import { SourceLimits, sourceKey } from "../rendezvous/source-limits.ts";
import { encodeDiscoverReply, parseNodeToBeacon } from "../wire/beacon.ts";
import { encodeProbeAnswer, type ProbeAnswer, type ProbeRequest, parseProbe } from "../wire/beacon-probe.ts";
import { formatIp, parseIp } from "../wire/underlay-address.ts";
import { bindError } from "./bind-error.ts";

export class BeaconProbePort {
  readonly #asked: Endpoint;
  readonly #socket: Socket;
  /** Key and bound: those of SourceLimits. */
  readonly #limits = new SourceLimits({ perSecond: 50, burst: 200 });

  constructor(asked: Endpoint) {
    this.#asked = asked;
    this.#socket = createSocket({ type: isIPv6(asked.address) ? "udp6" : "udp4" });
    this.#socket.on("message", (datagram, from) => this.#received(datagram, from));
  }

  bind(): Promise<void> {
    const { address, port } = this.#asked;
    return new Promise((resolve, reject) => {
      this.#socket.once("error", (cause) => {
        this.#socket.close();
        reject(bindError("beacon-probe", "UDP", this.#asked, cause));
      });
      this.#socket.bind({ address, port, exclusive: true }, () => {
        this.#socket.removeAllListeners("error");
        this.#socket.on("error", () => {}); // an ICMP error for a datagram of ours
        resolve();
      });
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#socket.close(() => resolve()));
  }

  /** A probe came to the beacon's first port: what it is to answer there, if the answer is not ours to send. */
  answer(request: ProbeRequest, source: Endpoint): Uint8Array | undefined {
    if (!request.fromOther) return encodeProbeAnswer(this.#answerTo(request, source));
    if (this.#limits.take(sourceKey(source.address), now())) this.#send(this.#answerTo(request, source), source);
    return undefined;
  }

  #answerTo({ token, fromOther }: ProbeRequest, observed: Endpoint): ProbeAnswer {
    const isAny = this.#asked.address === "0.0.0.0" || this.#asked.address === "::";
    const other = { address: isAny ? undefined : this.#asked.address, port: this.#socket.address().port };
    return { token, fromOther, observed, other };
  }

  #received(datagram: Uint8Array, from: RemoteInfo): void {
    const bytes = parseIp(from.address.replace(/%.*$/, ""));
    if (bytes === undefined) return;
    const source = { address: formatIp(bytes)!, port: from.port };
    if (!this.#limits.take(sourceKey(source.address), now())) return;
    const request = parseProbe(datagram);
    if (request !== undefined) this.#send(this.#answerTo({ ...request, fromOther: true }, source), source);
    else if (parseNodeToBeacon(datagram)?.kind === "discover") this.#sendBytes(encodeDiscoverReply(source), source);
  }

  #send(answer: ProbeAnswer, to: Endpoint): void {
    this.#sendBytes(encodeProbeAnswer(answer), to);
  }

  #sendBytes(bytes: Uint8Array | undefined, to: Endpoint): void {
    const isMapped = isIPv6(this.#asked.address) && !to.address.includes(":");
    if (bytes !== undefined)
      this.#socket.send(bytes, to.port, isMapped ? `::ffff:${to.address}` : to.address, () => {});
  }
}
