/**
 * The interface's addresses follow the node's memberships while it runs: one in network 0 and one in each network it is
 * in. Changes are made one after the other, each stating the whole wish; whoever waits for `apply` finds it done.
 */
import type { Engine } from "../engine/engine.ts";
import { applyInterface } from "../host/interface.ts";
import { formatOverlayAddress } from "../wire/address.ts";
import { networkId } from "../wire/ids.ts";
import { serviceAddress } from "./name-service.ts";
import type { UpOptions } from "./up-options.ts";

export class OverlayInterface {
  readonly #options: UpOptions;
  readonly #engine: Engine;
  #last: Promise<void> = Promise.resolve();

  constructor(options: UpOptions, engine: Engine) {
    this.#options = options;
    this.#engine = engine;
  }

  apply(): Promise<void> {
    const before = this.#last.catch(() => {}); // whoever asked for it was told
    this.#last = before.then(() => this.#applyNow());
    return this.#last;
  }

  /** Of this node, that of network 0 first. */
  get nodeAddresses(): string[] {
    const { node, networks } = this.#engine;
    const all = [networkId(0), ...networks.memberships()];
    return all.map((network) => formatOverlayAddress(this.#options.prefix, { network, node }));
  }

  #applyNow(): Promise<void> {
    const { tun, mtu, prefix } = this.#options;
    const services = this.#options.dns ? [serviceAddress(prefix)] : [];
    return applyInterface({
      name: tun,
      mtuBytes: mtu,
      addresses: [...this.nodeAddresses, ...services],
      prefix: prefix.text,
    });
  }
}
