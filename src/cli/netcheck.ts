/** `pilot-tun netcheck`: what this machine's network lets through, looked at anew by the daemon. */
import { EXIT, type ExitCode, type NetcheckReply, type Reachability } from "../control/api.ts";
import { type Context, type Declare, examples } from "./context.ts";
import { type Cell, printable, roundTrip, table } from "./format.ts";

export const declareNetcheck: Declare = (program, perform) => {
  program
    .command("netcheck")
    .description("what the network lets through: UDP, NAT, registry, beacon, the way around blocked UDP")
    .addHelpText(
      "after",
      `\nNAT behaviour is in the words of RFC 4787; it is unknown with a beacon that has no further ports.\n${examples("pilot-tun netcheck", "pilot-tun netcheck --json | jq .udp.out")}`,
    )
    .action(perform(netcheck));
};

/** Probes that must be waited for when nothing answers. */
const CHECK_MS = 15_000;

async function netcheck(context: Context): Promise<ExitCode> {
  const reply = await context.call("netcheck", {}, { extraMs: CHECK_MS });
  context.answer(reply, () => table(netcheckRows(reply), context.paint));
  return EXIT.ok;
}

export function netcheckRows(reply: NetcheckReply): Cell[][] {
  return [
    ["UDP out", udp(reply)],
    ["NAT", nat(reply)],
    ["hairpin", yesNo(reply.nat.hairpin)],
    ["MTU", reply.mtu.toBeacon === null ? "not known" : `${reply.mtu.toBeacon} to the beacon`],
    ["registry", reach(reply.registry)],
    ["beacon", reach(reply.beacon)],
    ["fallback", fallback(reply)],
    ["clock", clock(reply.clockSkewMs)],
  ];
}

function udp({ udp: { out, endpoint }, transport }: NetcheckReply): Cell {
  if (out) return { text: `yes, seen from outside as ${printable(endpoint ?? "?")}`, colour: "green" };
  return { text: transport === "tcp" ? "blocked, using TCP" : "blocked", colour: "red" };
}

function nat({ nat: { present, mapping, filtering } }: NetcheckReply): string {
  if (present === null) return "not known";
  if (!present) return "none";
  return `mapping ${mapping}, filtering ${filtering}`;
}

function reach({ address, reachable, latencyMs, error }: Reachability): Cell {
  const where = address === null ? "" : `, ${address}`;
  if (reachable) return { text: printable(`ok in ${roundTrip(latencyMs)}${where}`), colour: "green" };
  return { text: printable(`not reached${where}${error === null ? "" : ` (${error})`}`), colour: "yellow" };
}

function fallback({ fallback: found }: NetcheckReply): Cell {
  const cell = reach(found);
  if (found.proxy === null || typeof cell === "string") return cell;
  return { ...cell, text: `${cell.text}, through the proxy ${printable(found.proxy)}` };
}

function clock(skewMs: number | null): Cell {
  if (skewMs === null) return "not compared: the registry has not told its time";
  if (Math.abs(skewMs) < TOLERATED_MS) return "agrees with the registry's";
  const text = `${(Math.abs(skewMs) / 1000).toFixed(0)} s ${skewMs > 0 ? "ahead of" : "behind"} the registry's`;
  return { text, colour: "yellow" };
}

function yesNo(value: boolean | null): string {
  if (value === null) return "not known";
  return value ? "yes" : "no";
}

const TOLERATED_MS = 2_000;
