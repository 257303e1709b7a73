/** A firewall on hosts of a lab that lets their datagrams go to the beacon alone, so that peers must be relayed. */
import { type Lab, waitUntil } from "./lab.ts";

export async function blockDirect(lab: Lab, hosts: readonly string[]): Promise<void> {
  const beacon = lab.beacon.split(":")[0];
  const rules = [
    `add table inet ${TABLE}`,
    `add chain inet ${TABLE} out { type filter hook output priority 0; }`,
    `add rule inet ${TABLE} out oifname != "pilot0" meta l4proto udp ip daddr != ${beacon} drop`,
    `add rule inet ${TABLE} out oifname != "pilot0" meta nfproto ipv6 meta l4proto udp drop`,
  ];
  await nft(lab, hosts, rules.join("; "));
}

export async function allowDirect(lab: Lab, hosts: readonly string[]): Promise<void> {
  await nft(lab, hosts, `delete table inet ${TABLE}`);
}

/** Until both sides say that they reach each other so; each has the other for its first peer. */
export async function usePath(lab: Lab, hosts: readonly [string, string], path: "direct" | "relay"): Promise<void> {
  await waitUntil(
    `the path to be ${path}`,
    async () => {
      await lab.exec(hosts[0], "ping", ["-6", "-c", "1", "-W", "1", lab.overlay(hosts[1])]);
      const paths = await Promise.all(hosts.map(async (host) => (await lab.pilot(host, "peers")).peers[0].path));
      return paths.every((each) => each === path);
    },
    60_000,
  );
}

async function nft(lab: Lab, hosts: readonly string[], rules: string): Promise<void> {
  for (const host of hosts) {
    const { code, stderr } = await lab.exec(host, "nft", [rules]);
    if (code !== 0) throw new Error(`nft on ${host}: ${stderr}`);
  }
}

const TABLE = "direct";
