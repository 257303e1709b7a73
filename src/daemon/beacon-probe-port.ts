/**
 * The beacon's further ports: let nodes see whether their NAT maps and filters by the other side's port or address (RFC
 * 4787 §4.1, §5). They answer probes and discoveries, learn nothing, and relay nothing. Each names the next: the beacon's
 * own port the first of them, the first the second. With one on the beacon's address and one on another, both questions
 * have an answer.
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
  readonly #next: BeaconProbePort | undefined;
  readonly #socket: Socket;
  /** Key and bound: those of SourceLimits. */
  readonly #limits = new SourceLimits({ perSecond: 50, burst: 200 });

  /** A port for each endpoint, the first naming the second; undefined for none. */
  static chain(asked: readonly Endpoint[]): BeaconProbePort | undefined {
    return asked.reduceRight<BeaconProbePort | undefined>((next, at) => new BeaconProbePort(at, next), undefined);
  }

  private constructor(asked: Endpoint, next: BeaconProbePort | undefined) {
    this.#asked = asked;
    this.#next = next;
    this.#socket = createSocket({ type: isIPv6(asked.address) ? "udp6" : "udp4" });
    this.#socket.on("message", (datagram, from) => this.#received(datagram, from));
  }

  /** With those behind it; when one fails, none stays open. */
  async bind(): Promise<void> {
    await this.#bindOwn();
    try {
      await this.#next?.bind();
    } catch (cause) {
      this.#socket.close();
      throw cause;
    }
  }

  async close(): Promise<void> {
    await Promise.all([new Promise<void>((resolve) => this.#socket.close(resolve)), this.#next?.close()]);
  }

  #bindOwn(): Promise<void> {
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

  /** A probe came to the port before this one: what it is to answer there, if the answer is not ours to send. */
  answer(request: ProbeRequest, source: Endpoint): Uint8Array | undefined {
    if (!request.fromOther) return encodeProbeAnswer({ ...request, observed: source, other: this.#named });
    if (this.#limits.take(sourceKey(source.address), now())) this.#send({ ...request, observed: source }, source);
    return undefined;
  }

  /** As nodes are told of it. */
  get #named(): ProbeAnswer["other"] {
    const isAny = this.#asked.address === "0.0.0.0" || this.#asked.address === "::";
    return { address: isAny ? undefined : this.#asked.address, port: this.#socket.address().port };
  }

  #received(datagram: Uint8Array, from: RemoteInfo): void {
    const bytes = parseIp(from.address.replace(/%.*$/, ""));
    if (bytes === undefined) return;
    const source = { address: formatIp(bytes)!, port: from.port };
    if (!this.#limits.take(sourceKey(source.address), now())) return;
    const request = parseProbe(datagram);
    if (request !== undefined) this.#probed(request, source);
    else if (parseNodeToBeacon(datagram)?.kind === "discover") this.#sendBytes(encodeDiscoverReply(source), source);
  }

  #probed(request: ProbeRequest, source: Endpoint): void {
    if (this.#next !== undefined) this.#sendBytes(this.#next.answer(request, source), source);
    else if (!request.fromOther) this.#send({ ...request, observed: source }, source);
  }

  #send(answer: Omit<ProbeAnswer, "other">, to: Endpoint): void {
    this.#sendBytes(encodeProbeAnswer({ ...answer, other: undefined }), to);
  }

  #sendBytes(bytes: Uint8Array | undefined, to: Endpoint): void {
    const isMapped = isIPv6(this.#asked.address) && !to.address.includes(":");
    if (bytes !== undefined)
      this.#socket.send(bytes, to.port, isMapped ? `::ffff:${to.address}` : to.address, () => {});
  }
}
