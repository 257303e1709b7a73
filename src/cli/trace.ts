/** `pilot-tun trace`: every way to a peer, tried now: which is used, and why not a direct one. */
import { EXIT, type ExitCode, type TraceCandidate, type TraceReply } from "../control/api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { ago, type Cell, type Colour, peerName, printable, roundTrip, table, UNKNOWN } from "./format.ts";
import { pathWord } from "./peer-table.ts";

export const declareTrace: Declare = (program, perform) => {
  program
    .command("trace")
    .description("the ways to a peer, tried now: which is used, and why not a direct one")
    .argument("<PEER>", "hostname, Pilot address, overlay IPv6 address or node number")
    .addHelpText("after", examples("pilot-tun trace alice", "pilot-tun trace alice --json | jq .notDirect.code"))
    .action(perform(trace));
};

async function trace(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("trace", { peer: input.args[0]! }, { extraMs: PROBE_MS });
  context.answer(reply, () => [
    ...table(headRows(reply), context.paint),
    "",
    ...table([TITLES, ...reply.candidates.map(candidateRow)], context.paint),
    ...historyLines(reply),
  ]);
  return reply.answered ? EXIT.ok : EXIT.unreachable;
}

/** The daemon waits for answers of probes. */
const PROBE_MS = 2_000;
const TITLES = ["ENDPOINT", "FROM", "STATE", "TRIES", "TRIED", "HEARD", "RTT"];

function headRows(reply: TraceReply): Cell[][] {
  const { answered, notDirect, observed, local } = reply;
  const direct: Cell = notDirect === null ? { text: "yes", colour: "green" } : `no: ${printable(notDirect.message)}`;
  return [
    ["peer", peerName(reply.peer)],
    ["path", `${pathWord(reply.path)}${reply.endpoint === null ? "" : ` by ${printable(reply.endpoint)}`}`],
    ["answers", answered ? "yes" : { text: "no: nothing came back on any way", colour: "red" }],
    ["direct", direct],
    [
      "this node",
      `${printable(observed ?? UNKNOWN)} from outside, ${printable(local.join(" ")) || UNKNOWN} on its networks`,
    ],
  ];
}

function candidateRow(candidate: TraceCandidate): Cell[] {
  const { endpoint, origin, state, tries, triedAgoS, heardAgoS, rttMs } = candidate;
  const colour = COLOURS[state];
  const word: Cell = colour === undefined ? state : { text: state, colour };
  return [printable(endpoint), origin, word, String(tries), ago(triedAgoS), ago(heardAgoS), roundTrip(rttMs)];
}

const COLOURS: Partial<Record<TraceCandidate["state"], Colour>> = {
  chosen: "green",
  answers: "green",
  heard: "yellow",
};

function historyLines({ history }: TraceReply): string[] {
  if (history.length === 0) return [];
  const lines = history.map(
    ({ agoS, path, endpoint }) =>
      `  ${ago(agoS)}: ${pathWord(path)}${endpoint === null ? "" : ` ${printable(endpoint)}`}`,
  );
  return ["", "changes, newest first:", ...lines];
}
