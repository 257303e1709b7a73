/**
 * Later fragments carry no ports: they go the way of the first one of their packet, for as long as a host would wait for
 * them (RFC 8200 §4.5). One that comes before its first is not known here and is judged without ports.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import type { FlowKeySource } from "./flow-table.ts";

export class Fragments {
  /**
   * Key: link, then addresses, direction and identification. Bound: MAX_LINKS links with MAX_PER_LINK packets each, the
   * one that began longest ago goes; a peer's own packets crowd out nobody else's.
   */
  readonly #links = new BoundedMap<number, BoundedMap<string, { readonly flow: number; readonly atS: number }>>(
    MAX_LINKS,
  );

  /** The first fragment of a packet of this flow went through. */
  note(link: number, key: FlowKeySource, outbound: boolean, id: number, flow: number, nowS: number): void {
    let packets = this.#links.get(link);
    if (packets === undefined) {
      packets = new BoundedMap(MAX_PER_LINK);
      this.#links.set(link, packets);
    }
    packets.set(nameOf(key, outbound, id), { flow, atS: nowS });
  }

  /** The flow of the packet that this fragment belongs to; -1 when it is not known. */
  find(link: number, key: FlowKeySource, outbound: boolean, id: number, nowS: number): number {
    const known = this.#links.get(link)?.get(nameOf(key, outbound, id));
    return known === undefined || nowS - known.atS > REASSEMBLY_S ? -1 : known.flow;
  }
}

function nameOf({ view, remoteOffset, localOffset }: FlowKeySource, outbound: boolean, id: number): string {
  const words: number[] = [outbound ? 1 : 0, id];
  for (let i = 4; i < 16; i += 4) words.push(view.getInt32(remoteOffset + i), view.getInt32(localOffset + i));
  return words.join();
}

const MAX_LINKS = 1_024;
const MAX_PER_LINK = 64;
const REASSEMBLY_S = 60;
