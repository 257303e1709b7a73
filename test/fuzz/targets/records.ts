/** What is read back from disk: trust, what a node remembers, the audit log, the marks of clocks, the configuration. */
import { Command } from "commander";
import { encodeRecord, NO_HASH, parseRecord } from "../../../src/audit/record.ts";
import { resume } from "../../../src/audit/resume.ts";
import { parseSeal } from "../../../src/audit/seal.ts";
import { Verifier } from "../../../src/audit/verify.ts";
import type { WallClock } from "../../../src/base/instant.ts";
import { parseConfig } from "../../../src/cli/config-file.ts";
import { declareRendezvous } from "../../../src/cli/rendezvous.ts";
import { declaredOptions } from "../../../src/cli/settings.ts";
import { declareUp } from "../../../src/cli/up.ts";
import { NodeMemory } from "../../../src/daemon/node-memory.ts";
import type { StateDirectory } from "../../../src/io/state-directory.ts";
import { leaseMarkToJson, parseLeaseMark } from "../../../src/trust/lease-clock.ts";
import { TrustBook } from "../../../src/trust/trust-book.ts";
import { parseIp } from "../../../src/wire/underlay-address.ts";
import { cheapCrypto } from "../cheap-crypto.ts";
import { demand, demandSame, FuzzInput, jsonOf, textOf } from "../input.ts";

const crypto = cheapCrypto();
const DECLARED = [declareUp, declareRendezvous].flatMap((declare) => {
  const program = new Command();
  declare(program, () => async () => {});
  return declaredOptions(program.commands[0]!);
});

export function fuzz(data: Uint8Array): void {
  const input = new FuzzInput(data);
  const kind = input.below(4);
  if (kind === 0) trust(jsonOf(input.rest()));
  else if (kind === 1) memory(jsonOf(input.rest()));
  else if (kind === 2) auditLog(input);
  else configuration(textOf(input.rest()));
}

function trust(json: unknown): void {
  const book = TrustBook.fromJson(json);
  if (book !== undefined) {
    const stored = book.toJson();
    demandSame(TrustBook.fromJson(JSON.parse(JSON.stringify(stored)))?.toJson(), stored, "a trust book survives");
  }
  const mark = parseLeaseMark(json);
  if (mark !== undefined) demandSame(parseLeaseMark(leaseMarkToJson(mark)), mark, "the mark of a clock survives");
  parseSeal(json);
}

function memory(json: unknown): void {
  if (typeof json !== "object" || json === null) return; // the state directory hands on nothing else
  const state = {
    load: (_name: string, parse: (json: unknown) => unknown) => ({ value: parse(json) }),
    save: () => undefined,
  } as unknown as StateDirectory;
  const node = NodeMemory.load(state);
  for (const [peer, { address, port }] of node.endpoints()) {
    demand(peer > 0 && parseIp(address) !== undefined && port > 0, "a remembered endpoint is one", address, port);
  }
  node.kinds();
  node.nameOf(node.nodeNamed("bob") ?? (1 as never));
  node.rememberNames([{ name: "bob", node: 7 as never }]);
  for (const { networks } of node.networks.peers) demand(networks.every(Number.isInteger), "networks are numbers");
  for (const { tags } of node.tags)
    demand(
      tags.every((tag) => typeof tag === "string"),
      "tags are texts",
    );
}

function auditLog(input: FuzzInput): void {
  const text = textOf(input.block());
  const record = parseRecord(text);
  if (record !== undefined) demand(text.startsWith(record.body) && record.seq > 0, "a record is what its line says");
  const own = encodeRecord(crypto, 1, NO_HASH, {
    event: "start",
    at: 1_900_000_000_000 as WallClock,
    fields: () => ({ text }),
  });
  demand(parseRecord(own.line.slice(0, -1))?.hash === own.hash, "what is written is read, whatever it says");
  const files = [input.block(), input.rest()];
  const anchor = "missing" as const;
  const verifier = new Verifier({ crypto, anchor });
  for (const [i, bytes] of files.entries()) {
    verifier.addFile(`audit-${i + 1}`, i + 1, bytes, i === files.length - 1);
  }
  const report = verifier.finish();
  demand(report.files === files.length && report.findings.length <= 1_000, "findings are bounded");
  const found = files.map((bytes, i) => ({ number: i + 1, bytes: bytes.length }));
  const { end, cut } = resume({ files: found, anchor, tailOf: ({ number }) => files[number - 1]! });
  demand(end.nextSeq > end.seq, "numbers rise", end);
  demand(cut === undefined || cut.toBytes <= files[cut.file - 1]!.length, "a file is cut, never made longer", cut);
}

function configuration(text: string): void {
  const read = parseConfig("config.toml", text, DECLARED);
  const lines = text.split("\n").length;
  if ("problems" in read) demand(read.problems.length > 0, "what is refused has a reason");
  else
    for (const { line } of read.file.entries.values()) demand(line >= 0 && line <= lines, "an entry has a line", line);
}
