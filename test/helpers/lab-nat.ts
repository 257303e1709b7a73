/**
 * Routers for a lab: each host of a switched lab can be put behind a network namespace that translates its addresses,
 * in one of the four kinds of RFC 4787:
 *
 *   kind                     mapping                        filtering
 *   endpoint-independent     one port for all destinations  whoever knows the port
 *   address-dependent        one port for all destinations  addresses that the host wrote to, any port
 *   port-dependent           one port for all destinations  address and port that the host wrote to
 *   symmetric                another port per destination   address and port that the host wrote to
 *
 *   host (192.168.k.2) ── lan0 [router, nftables] eth0 (10.77.0.x) ── net
 *
 * Recipes, with the kernel's connection tracking: masquerading keeps the port while it is free, and lets back only what
 * answers: that is port-dependent. `random,fully-random` draws a port per connection: symmetric. A redirection of every
 * unknown datagram to the host, from anybody or from addresses in a set that outgoing packets fill, gives the other two.
 * `probeNat` holds each recipe to its kind.
 */
import { expect } from "vitest";
import type { ExecResult, Lab } from "./lab.ts";

export const NAT_KINDS = ["endpoint-independent", "address-dependent", "port-dependent", "symmetric"] as const;
export type NatKind = (typeof NAT_KINDS)[number];

export class LabNat {
  readonly #lab: Lab;
  readonly #router: string;
  readonly #subnet: number;
  #members = 0;
  #kind: NatKind = "port-dependent";

  /** `router` is a host of the lab; `subnet` the third number of the addresses behind it. */
  constructor(lab: Lab, router: string, subnet: number) {
    this.#lab = lab;
    this.#router = router;
    this.#subnet = subnet;
  }

  get router(): string {
    return this.#router;
  }

  /** Its address on the outside. */
  get outside(): string {
    return this.#lab.network.addressOf(this.#router);
  }

  async create(kind: NatKind): Promise<void> {
    await this.#run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1");
    // Where that module is there, translation would happen between the bridge's ports; where not, there is nothing to set.
    await this.#lab.exec(this.#router, "sysctl", ["-q", "-w", "net.bridge.bridge-nf-call-iptables=0"]);
    await this.#run("ip", "link", "add", "lan0", "address", `02:00:00:00:78:0${this.#subnet}`, "type", "bridge");
    await this.#run("ip", "addr", "add", `192.168.${this.#subnet}.1/24`, "dev", "lan0");
    await this.#run("ip", "link", "set", "dev", "lan0", "up");
    await this.become(kind);
  }

  /** Takes a host off the switch, or from behind another router, and puts it behind this one; returns its address. */
  async adopt(host: string): Promise<string> {
    const address = `192.168.${this.#subnet}.${2 + this.#members++}`;
    await run(this.#lab, host, "ip", "link", "del", "dev", "eth0");
    const outer = this.#lab.network.namespaceOf(this.#router);
    const names = ["name", "eth0", "type", "veth", "peer", "name", `to-${host}`];
    await run(this.#lab, host, "ip", "link", "add", ...names);
    await run(this.#lab, host, "ip", "link", "set", "dev", `to-${host}`, "netns", outer);
    await this.#run("ip", "link", "set", "dev", `to-${host}`, "master", "lan0", "up");
    await run(this.#lab, host, "ip", "addr", "add", `${address}/24`, "dev", "eth0");
    await run(this.#lab, host, "ip", "link", "set", "dev", "eth0", "up");
    await run(this.#lab, host, "ip", "route", "add", "default", "via", `192.168.${this.#subnet}.1`);
    return address;
  }

  /** Also forgets every mapping, as a router does that restarts. */
  async become(kind: NatKind, { hairpins = false } = {}): Promise<void> {
    this.#kind = kind;
    const turnRound = hairpins ? this.#turnRound() : "";
    const rules = `flush ruleset\n${ruleset(kind, `192.168.${this.#subnet}.2`)}\n${turnRound}`;
    await checked(this.#lab.exec(this.#router, "nft", ["-f", "-"], { input: rules }));
    await this.forget();
  }

  /** What the host sends to the router's outside comes back in from there (RFC 4787 §6). */
  #turnRound(): string {
    const inside = `192.168.${this.#subnet}.2`;
    return `
      table ip hairpin {
        chain prerouting { type nat hook prerouting priority dstnat - 1
          iifname "lan0" ip daddr ${this.outside} meta l4proto udp dnat to ${inside}
        }
        chain postrouting { type nat hook postrouting priority srcnat - 1
          oifname "lan0" ip saddr ${inside} snat to ${this.outside}
        }
      }`;
  }

  async forget(): Promise<void> {
    await this.#run("conntrack", "-F");
  }

  /** Lets nothing through between the inside and one outer address, both ways; `undefined` lifts every block. */
  async block(outerAddress: string | undefined): Promise<void> {
    const block = outerAddress === undefined ? "" : `ip saddr ${outerAddress} drop\nip daddr ${outerAddress} drop`;
    const rules = `table ip block\ndelete table ip block
      table ip block {\nchain forward {\ntype filter hook forward priority -10\n${block}\n}\n}\n`;
    await checked(this.#lab.exec(this.#router, "nft", ["-f", "-"], { input: rules }));
  }

  get kind(): NatKind {
    return this.#kind;
  }

  async #run(program: string, ...args: readonly string[]): Promise<void> {
    await run(this.#lab, this.#router, program, ...args);
  }
}

function ruleset(kind: NatKind, inside: string): string {
  const masquerade = kind === "symmetric" ? "masquerade random,fully-random" : "masquerade";
  const known = kind === "address-dependent" ? "ip saddr @contacted " : "";
  const toHost =
    kind === "endpoint-independent" || kind === "address-dependent"
      ? `iifname "eth0" meta l4proto udp ${known}dnat to ${inside}`
      : "";
  return `
    table ip nat {
      set contacted { type ipv4_addr; flags dynamic,timeout; timeout 2m; }
      chain prerouting { type nat hook prerouting priority dstnat
        ${toHost}
      }
      chain postrouting { type nat hook postrouting priority srcnat
        oifname "eth0" ${masquerade}
      }
      chain forward { type filter hook forward priority filter
        oifname "eth0" update @contacted { ip daddr }
        iifname "eth0" ct state new ct status & dnat == 0 drop
      }
      chain input { type filter hook input priority filter
        # Without this the router answers with ICMP and remembers the datagram, and the host loses its port.
        iifname "eth0" meta l4proto udp drop
      }
    }`;
}

/** What theory says of two hosts behind such routers (RFC 5128 §3.3 with port prediction left out). */
export function expectedPath(a: NatKind, b: NatKind): "direct" | "relay" {
  const strict = (kind: NatKind): boolean => kind === "symmetric" || kind === "port-dependent";
  return (a === "symmetric" && strict(b)) || (b === "symmetric" && strict(a)) ? "relay" : "direct";
}

export interface NatBehaviour {
  readonly sameMapping: boolean;
  readonly letsInOtherAddress: boolean;
  readonly letsInOtherPort: boolean;
}

export const BEHAVIOUR: Readonly<Record<NatKind, NatBehaviour>> = {
  "endpoint-independent": { sameMapping: true, letsInOtherAddress: true, letsInOtherPort: true },
  "address-dependent": { sameMapping: true, letsInOtherAddress: false, letsInOtherPort: true },
  "port-dependent": { sameMapping: true, letsInOtherAddress: false, letsInOtherPort: false },
  symmetric: { sameMapping: false, letsInOtherAddress: false, letsInOtherPort: false },
};

/**
 * Measures a router as RFC 5780 does: the host writes to two ports of `net`; then a third port of the same address and
 * a port of another host write to the mapping that the first saw.
 */
export async function probeNat(lab: Lab, host: string, stranger: string): Promise<NatBehaviour> {
  const net = lab.network.addressOf(lab.rendezvousHost);
  const inside = lab.spawn(host, "python3", ["-c", INSIDE, net]);
  const outside = await checked(lab.exec(lab.rendezvousHost, "python3", ["-c", OUTSIDE, net]));
  const [address, port, otherPort] = outside.stdout.trim().split(" ") as [string, string, string];
  await checked(lab.exec(stranger, "python3", ["-c", STRANGER, address, port]));
  await inside.waitForEnd(10_000);
  expect(inside.stdout, inside.report()).toContain("first"); // the mapping itself works
  return {
    sameMapping: port === otherPort,
    letsInOtherAddress: inside.stdout.includes("stranger"),
    letsInOtherPort: inside.stdout.includes("third"),
  };
}

const INSIDE = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 4444))
s.settimeout(0.05)
end = time.time() + 1.6
while time.time() < end:
    for port in (7001, 7002): s.sendto(b"x", (sys.argv[1], port))
    for _ in range(3):
        try: print(s.recv(99).decode(), flush=True)
        except socket.timeout: pass
`;
const OUTSIDE = `
import socket, sys
socks = []
for port in (7001, 7002, 7003):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((sys.argv[1], port))
    s.settimeout(3)
    socks.append(s)
first = socks[0].recvfrom(99)[1]
second = socks[1].recvfrom(99)[1]
for _ in range(3):
    socks[0].sendto(b"first", first)
    socks[2].sendto(b"third", first)
print(first[0], first[1], second[1])
`;
const STRANGER = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3): s.sendto(b"stranger", (sys.argv[1], int(sys.argv[2])))
`;

async function run(lab: Lab, host: string, program: string, ...args: readonly string[]): Promise<void> {
  await checked(lab.exec(host, program, args));
}

async function checked(outcome: Promise<ExecResult>): Promise<ExecResult> {
  const result = await outcome;
  if (result.code !== 0) throw new Error(`ended with ${result.code}: ${result.stderr}${result.stdout}`);
  return result;
}
