/** The card of this node: what it is called, and how its ways to the overlay do. */
import { bytes, duration, UNKNOWN } from "../../base/readable.ts";
import { hostName } from "../../control/peer-name.ts";
import type { State } from "../view.ts";
import { find, makeFact, setText } from "./dom.ts";

type Fact = readonly [title: string, text: (state: State) => string];

const FACTS: readonly Fact[] = [
  ["Address", ({ node }) => node.address ?? "none yet"],
  [
    "Names",
    ({ node }) => [hostName(node.hostname), node.pilot, node.node].filter((one) => one != null).join(" · ") || UNKNOWN,
  ],
  ["Interface", ({ node }) => `${node.interface}, mtu ${node.mtu}`],
  ["Traffic", ({ rxRate, txRate }) => `${rate(rxRate)} in, ${rate(txRate)} out`],
  [
    "Registry",
    ({ node: { registry } }) =>
      `${registry.state} for ${duration(registry.sinceS)}, ${registry.address}${reason(registry.error)}`,
  ],
  [
    "Beacon",
    ({ node: { beacon } }) => `${beacon.state}, ${beacon.address}${beacon.transport === "tcp" ? ", over TCP" : ""}`,
  ],
  ["Seen from outside as", ({ node: { beacon } }) => beacon.observed ?? UNKNOWN],
  ["Listens at", ({ node }) => node.listen],
  ["Names under .pilot", ({ node: { dns } }) => namesText(dns)],
  ["Up", ({ node }) => duration(node.uptimeS)],
];

export class NodeFacts {
  readonly #shown = FACTS.map(([title, textOf]) => ({ ...makeFact(title), textOf }));

  constructor() {
    find("#node").replaceChildren(...this.#shown.map(({ element }) => element));
  }

  show(state: State): void {
    for (const { value, textOf } of this.#shown) setText(value, textOf(state));
    setText(find("#host"), hostName(state.node.hostname) ?? state.node.pilot ?? "");
    setText(find("#version"), `pilot-tun ${state.node.version}`);
  }
}

/** `12 KiB/s`. */
export function rate(bytesPerSecond: number | null): string {
  return bytesPerSecond === null ? UNKNOWN : `${bytes(Math.round(bytesPerSecond))}/s`;
}

function reason(error: string | null): string {
  return error === null ? "" : ` (${error})`;
}

function namesText({ address, resolved }: State["node"]["dns"]): string {
  if (address === null) return "not answered here";
  return resolved === "applied" ? `by systemd-resolved and at ${address}` : `at ${address} only`;
}
