/** `pilot-tun show [dump]`: everything of each peer, a line each fact as `wg show` has it, or a line each peer for scripts. */
import { EXIT, type ExitCode, type PeerStatus, type StatusReply } from "../control/api.ts";
import { type Context, type Declare, examples } from "./context.ts";
import { ago, bytes, duration, peerName, printable, roundTrip } from "./format.ts";
import { pathWord } from "./peer-table.ts";

export const declareShow: Declare = (program, perform) => {
  const show = program
    .command("show")
    .description("the interface and every peer, fact by fact")
    .addHelpText("after", examples("pilot-tun show", "pilot-tun show dump | cut -f 1,5"))
    .action(perform(facts));
  show
    .command("dump")
    .description("the same for scripts: a line for the interface, then one for each peer, fields separated by tabs")
    .addHelpText("after", `\n${FIELDS}\n${examples("pilot-tun show dump | awk -F'\\t' 'NR > 1 && $5 == \"relay\"'")}`)
    .action(perform(dump));
};

const FIELDS = `Interface: name, address, mtu, public key, listen, hostname.
Peer: node, hostname, address, endpoint, path, received bytes, sent bytes, seconds since heard, trust, seconds left of a
lease, round trip in ms. A field that is not known is -.`;

async function facts(context: Context): Promise<ExitCode> {
  const reply = await context.call("status", {});
  context.answer(reply, () => [...interfaceLines(reply), ...reply.peers.flatMap((peer) => ["", ...peerLines(peer)])]);
  return EXIT.ok;
}

function interfaceLines(reply: StatusReply): string[] {
  return [
    `interface: ${printable(reply.interface)}`,
    `  address: ${reply.address ?? "(none yet)"}`,
    `  public key: ${reply.publicKey}`,
    `  listening: ${printable(reply.listen)}`,
    `  mtu: ${reply.mtu}`,
  ];
}

function peerLines(peer: PeerStatus): string[] {
  const moved = `${bytes(peer.rxBytes)} received, ${bytes(peer.txBytes)} sent`;
  const lines: (string | null)[] = [
    `peer: ${peerName(peer)}`,
    `  node: ${peer.pilot}, number ${peer.node}`,
    `  address: ${peer.address}`,
    `  trust: ${peer.trust}`,
    peer.lease?.endsInS == null ? null : `  lease: ${duration(peer.lease.endsInS)} left`,
    peer.endpoint === null ? null : `  endpoint: ${printable(peer.endpoint)}`,
    `  path: ${pathWord(peer.path)}`,
    peer.rttMs === null ? null : `  round trip: ${roundTrip(peer.rttMs)}`,
    peer.session === "none" ? null : `  session: ${SESSION_WORDS[peer.session]}`,
    peer.lastHandshakeAgoS === null ? null : `  latest handshake: ${ago(peer.lastHandshakeAgoS)}`,
    `  transfer: ${moved}`,
    peer.note === "" ? null : `  note: ${printable(peer.note)}`,
  ];
  return lines.filter((line) => line !== null);
}

async function dump(context: Context): Promise<ExitCode> {
  const reply = await context.call("status", {});
  context.answer(reply, () => [
    tabbed([reply.interface, reply.address, reply.mtu, reply.publicKey, reply.listen, reply.hostname]),
    ...reply.peers.map((peer) =>
      tabbed([
        ...[peer.node, peer.hostname, peer.address, peer.endpoint, peer.path, peer.rxBytes, peer.txBytes],
        ...[peer.lastReceivedAgoS, peer.trust, peer.lease?.endsInS ?? null, peer.rttMs],
      ]),
    ),
  ]);
  return EXIT.ok;
}

function tabbed(fields: readonly (string | number | null)[]): string {
  return fields.map((field) => (field === null ? "-" : printable(String(field)))).join("\t");
}

const SESSION_WORDS = { noise: "noise, forward secret", base: "base, keys of the exchange" } as const;
