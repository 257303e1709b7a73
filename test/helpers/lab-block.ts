/** Firewalls of a lab: what a host's own network does not let through. Its loopback and its overlay stay as they are. */
import type { Lab } from "./lab.ts";

/** Drops what leaves or reaches the host over its cable and matches, or does with it what `verdict` says. */
export async function block(lab: Lab, host: string, match: string, verdict = "drop"): Promise<void> {
  await load(
    lab,
    host,
    `table inet block {
      chain out {
        type filter hook output priority 0
        oifname "eth0" ${match} ${verdict}
      }
      chain in {
        type filter hook input priority 0
        iifname "eth0" ${match} ${verdict}
      }
    }`,
  );
}

export async function unblock(lab: Lab, host: string): Promise<void> {
  await load(lab, host, "");
}

async function load(lab: Lab, host: string, rules: string): Promise<void> {
  const { code, stderr } = await lab.exec(host, "nft", ["-f", "-"], { input: `flush ruleset\n${rules}\n` });
  if (code !== 0) throw new Error(`nft on ${host}: ${stderr}`);
}
