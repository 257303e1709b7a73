/**
 * A UDP socket of its own with which `netcheck` looks at the network: what it sends changes nothing of the tunnels, and
 * no NAT has state for it yet, which the filtering test needs. One question at a time.
 */
import { createSocket, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import type { Endpoint } from "../base/endpoint.ts";
import { formatIp, parseIp } from "../wire/underlay-address.ts";
import { now } from "./clock.ts";

export interface Heard {
  readonly datagram: Uint8Array;
  readonly from: Endpoint;
  /** From the last copy of the question that was sent before. */
  readonly latencyMs: number;
}

export class UdpProbe {
  readonly #socket: Socket;
  readonly #isIpv6: boolean;
  #hear: (datagram: Uint8Array, from: Endpoint) => void = () => {};

  static open(family: "IPv4" | "IPv6"): Promise<UdpProbe> {
    const probe = new UdpProbe(family === "IPv6");
    return new Promise((resolve, reject) => {
      probe.#socket.once("error", reject);
      probe.#socket.bind(0, () => {
        probe.#socket.off("error", reject);
        probe.#socket.on("error", () => {}); // an ICMP error is no answer
        resolve(probe);
      });
    });
  }

  private constructor(isIpv6: boolean) {
    this.#isIpv6 = isIpv6;
    this.#socket = createSocket(isIpv6 ? "udp6" : "udp4");
    this.#socket.on("message", (datagram, { address, port }) => {
      const bytes = parseIp(address.replace(/%.*$/, ""));
      if (bytes !== undefined) this.#hear(datagram, { address: formatIp(bytes)!, port });
    });
  }

  get port(): number {
    return this.#socket.address().port;
  }

  /** Sends up to TRIES copies until a datagram comes for which `isAnswer` holds; undefined when none does. */
  ask(
    to: Endpoint,
    question: Uint8Array,
    isAnswer: (datagram: Uint8Array, from: Endpoint) => boolean,
    signal: AbortSignal,
  ): Promise<Heard | undefined> {
    return new Promise((resolve) => {
      let sentAt = now();
      let tries = 0;
      const end = (heard: Heard | undefined): void => {
        clearInterval(timer);
        signal.removeEventListener("abort", abort);
        this.#hear = () => {};
        resolve(heard);
      };
      const abort = (): void => end(undefined);
      const send = (): void => {
        if (tries++ === TRIES) return end(undefined);
        sentAt = now();
        this.send(to, question);
      };
      this.#hear = (datagram, from) => {
        if (isAnswer(datagram, from)) end({ datagram, from, latencyMs: now() - sentAt });
      };
      const timer = setInterval(send, TRY_MS);
      if (signal.aborted) return abort();
      signal.addEventListener("abort", abort, { once: true });
      send();
    });
  }

  send(to: Endpoint, datagram: Uint8Array): void {
    if (isIPv6(to.address) !== this.#isIpv6) return; // the other family: it cannot arrive
    this.#socket.send(datagram, to.port, to.address, () => {});
  }

  close(): void {
    this.#socket.close();
  }
}

const TRIES = 4;
const TRY_MS = 400;
