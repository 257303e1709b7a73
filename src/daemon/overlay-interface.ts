/**
 * The interface's addresses follow the node's memberships while it runs: one in network 0 and one in each network it is
 * in. Changes are made one after the other, each stating the whole wish; whoever waits for `apply` finds it done.
 *
 * The kernel takes addresses and routes away when somebody sets the interface down, or its MTU below what IPv6 needs. It is
 * looked at within a second of the kernel's notice that something changed: down stays down and is shown, for that was somebody's wish; up again it gets back what it lost.
 */
import type { Problem } from "../base/error-code.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { Engine } from "../engine/engine.ts";
import { applyInterface, type InterfaceState, interfaceState } from "../host/interface.ts";
import { watchLinks } from "../io/native.ts";
import { formatOverlayAddress } from "../wire/address.ts";
import { networkId } from "../wire/ids.ts";
import { serviceAddress } from "./name-service.ts";
import type { UpOptions } from "./up-options.ts";

export class OverlayInterface {
  readonly #options: Pick<UpOptions, "tun" | "mtu" | "prefix" | "dns">;
  readonly #engine: Pick<Engine, "node" | "networks" | "problems">;
  readonly #host: InterfaceHost;
  #last: Promise<void> = Promise.resolve();
  #isApplying = false;
  #watch: NodeJS.Timeout | undefined;
  #noticed: NodeJS.Timeout | undefined;
  /** Ends the kernel's notices; undefined where there are none. */
  #endNotices: (() => void) | undefined;
  /** Looks that are left out after a repair was refused. */
  #looksToSkip = 0;

  constructor(
    options: Pick<UpOptions, "tun" | "mtu" | "prefix" | "dns">,
    engine: Pick<Engine, "node" | "networks" | "problems">,
    host: InterfaceHost = { apply: applyInterface, state: interfaceState },
  ) {
    this.#options = options;
    this.#engine = engine;
    this.#host = host;
  }

  apply(): Promise<void> {
    const before = this.#last.catch(() => {}); // whoever asked for it was told
    this.#last = before.then(() => this.#applyNow());
    return this.#last;
  }

  /** The same; a refusal is a problem to show, for packets go on with the addresses that are there. False when refused. */
  async applyOrTell(): Promise<boolean> {
    const { problems } = this.#engine;
    try {
      await this.apply();
      problems.delete("interface_refused");
      return true;
    } catch (error) {
      const { message, hint } = error instanceof PilotError ? error : { message: String(error), hint: "" };
      problems.set("interface_refused", { code: "interface_refused", message, hint });
      return false;
    }
  }

  /** From now on what is lost comes back; after the first `apply`. */
  watch(): void {
    this.#endNotices = watchLinks(() => this.#lookSoon());
    const everyMs = this.#endNotices === undefined ? LOOK_INTERVAL_MS : UNTOLD_LOOK_INTERVAL_MS;
    this.#watch = setInterval(() => this.#lookSoon(), everyMs).unref();
  }

  close(): void {
    clearInterval(this.#watch);
    clearTimeout(this.#noticed);
    this.#endNotices?.();
    this.#looksToSkip = 0;
  }

  /** A while with many notices is one look; what was refused is tried again without any. */
  #lookSoon(): void {
    this.#noticed ??= setTimeout(() => {
      this.#noticed = undefined;
      void this.look().then(() => this.#looksToSkip > 0 && this.#lookSoon());
    }, LOOK_INTERVAL_MS).unref();
  }

  /** One look, which notices and a timer bring about; done when what was missing is there again, or was refused. */
  async look(): Promise<void> {
    if (this.#isApplying) return;
    if (this.#looksToSkip > 0) return void this.#looksToSkip--;
    const { problems } = this.#engine;
    const state = this.#host.state(this.#options.tun);
    if (state === undefined) return; // it cannot be seen just now
    if (!state.isUp) return void problems.set("interface_down", this.#downProblem());
    problems.delete("interface_down");
    if (this.#addresses.every((address) => state.addresses.includes(address))) return;
    if (!(await this.applyOrTell())) this.#looksToSkip = LOOKS_AFTER_REFUSAL;
  }

  /** Of this node, that of network 0 first. */
  get nodeAddresses(): string[] {
    const { node, networks } = this.#engine;
    const all = [networkId(0), ...networks.memberships()];
    return all.map((network) => formatOverlayAddress(this.#options.prefix, { network, node }));
  }

  get #addresses(): string[] {
    return [...this.nodeAddresses, ...(this.#options.dns ? [serviceAddress(this.#options.prefix)] : [])];
  }

  async #applyNow(): Promise<void> {
    const { tun, mtu, prefix } = this.#options;
    this.#isApplying = true;
    try {
      await this.#host.apply({ name: tun, mtuBytes: mtu, addresses: this.#addresses, prefix: prefix.text });
    } finally {
      this.#isApplying = false;
    }
  }

  #downProblem(): Problem {
    const { tun } = this.#options;
    return {
      code: "interface_down",
      message: `${tun} was set down; nothing passes`,
      hint: `ip link set ${tun} up. Its addresses and its route come back by themselves.`,
    };
  }
}

/** What the host is asked for and about. */
export interface InterfaceHost {
  apply: typeof applyInterface;
  state(name: string): InterfaceState | undefined;
}

const LOOK_INTERVAL_MS = 1_000;
/** In case a notice was lost. */
const UNTOLD_LOOK_INTERVAL_MS = 10_000;
const LOOKS_AFTER_REFUSAL = 5;
