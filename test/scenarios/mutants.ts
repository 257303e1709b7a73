/**
 * Whether the simulation would notice. Each mutant is this product with one thing taken out that keeps an invariant up: its sources
 * are copied, changed and lived through until a life shows it. `scripts/simulate --mutants`.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Change {
  /** Below the repository. */
  readonly file: string;
  /** Stands there exactly once. */
  readonly text: string;
  readonly becomes: string;
}

export interface Mutant extends Change {
  readonly name: string;
  /** What would hide the first change. */
  readonly and?: Change;
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: "packets of peers are not asked for trust",
    file: "src/engine/inbound.ts",
    text: "const state = trust.stateOf(link.node);",
    becomes: 'const state = "mutual" as ReturnType<typeof trust.stateOf>;',
  },
  {
    name: "packets of programs are not asked for trust",
    file: "src/engine/outbound.ts",
    text: "const state = trust.stateOf(node);",
    becomes: 'const state = "mutual" as ReturnType<typeof trust.stateOf>;',
  },
  {
    name: "flows are not cut when trust ends, and go on under an earlier one",
    file: "src/policy/flow-table.ts",
    text: "if (words[entry + EPOCH] !== (epoch | 0)) return false;",
    becomes: "void epoch;",
    and: {
      file: "src/engine/parting.ts",
      text: "const flows = this.#parts.flows.cut(link.index, nowS);",
      becomes: "const flows: Flow[] = [];\n    void nowS;",
    },
  },
  {
    name: "a revocation that was heard of leaves the link open",
    file: "src/engine/introductions.ts",
    text: "this.#parts.book.put(statement.revocationTold(record));\n    this.#parts.closeLink(node, now);",
    becomes: "this.#parts.book.put(statement.revocationTold(record));",
  },
  {
    name: "who is revoked keeps the link",
    file: "src/engine/introductions.ts",
    text: "if (statement.consents(before)) this.#parts.registry.revokeTrust(node);\n        this.#parts.closeLink(node, now);",
    becomes: "",
  },
  {
    name: "the inner source may be anybody",
    file: "src/engine/inbound.ts",
    text: 'if (routes.ownerOf(this.#arena, offset + 8) !== link.node) return "spoofed-source";',
    becomes: "",
  },
  {
    name: "the replay window lets everything through",
    file: "src/tunnel/replay-window.ts",
    text: "if ((this.#bits[bit >>> 5]! & mask) !== 0) return false;",
    becomes: "",
  },
  {
    name: "keys are never replaced",
    file: "src/tunnel/rekeying.ts",
    text: "this.#overdueSince ??= now;\n    this.#want(current, true, now);",
    becomes: "",
  },
  {
    name: "any number of packets waits for a key",
    file: "src/tunnel/staging.ts",
    text: "while (this.#packets.length > MAX_PACKETS || this.#bytes > MAX_BYTES) {",
    becomes: "while (this.#packets.length > 1_000_000) {",
  },
  {
    name: "an approval counts without an ask",
    file: "src/trust/trust-record.ts",
    text: 'if (record.state !== "asked") return record;\n  if (madeAt',
    becomes: "if (madeAt",
  },
  {
    name: "leases do not end with their time",
    file: "src/engine/leases.ts",
    text: "if (this.#endsAt !== undefined && this.#endsAt <= now) this.#endOverdue(now);",
    becomes: "",
  },
  {
    name: "leases do not know that the machine slept",
    file: "src/engine/leases.ts",
    text: "this.#offsetMs += ms;",
    becomes: "void ms;",
  },
  {
    name: "bytes of a lease are not counted",
    file: "src/engine/leases.ts",
    text: "const rest = this.#portions[link]! - bytes;",
    becomes: "const rest = this.#portions[link]! + bytes;",
  },
  {
    name: "the policy denies nothing",
    file: "src/engine/admission.ts",
    text: "if (this.policy.allows(verdict)) {\n      this.counters.allowed++;",
    becomes: "if (verdict !== undefined) {\n      this.counters.allowed++;",
  },
  {
    name: "packets of peers need no membership",
    file: "src/engine/inbound.ts",
    text: 'if (this.#parts.networks.admits(this.#arena, offset + 8, offset + 24, link.node, now) !== "yes")\n      return "not-member";',
    becomes: "",
  },
  {
    name: "leaving a network leaves its consents",
    file: "src/trust/trust-record.ts",
    text: 'return consents(record) ? { ...next, state: "none", since: now, revocationUntold: true } : next;',
    becomes: "return next;",
  },
  {
    name: "an approval that was held back is sent after all",
    file: "src/registry/client.ts",
    text: "for (const [key, command] of this.#queue) if (isConsentWith(command, node)) this.#queue.delete(key);",
    becomes: "",
  },
  {
    name: "trust by letters is never asked about",
    file: "src/engine/unconfirmed-trust.ts",
    text: "this.#parts.registry.checkTrust(node);",
    becomes: "",
  },
  {
    name: "asks are not made again when the registry is back",
    file: "src/engine/introductions.ts",
    text: 'if (record.state === "asked" || hasOpenAsk(record)) this.#askThroughRegistry(record, now);',
    becomes: "",
  },
];

/** In so many lives from seed 1 on, from the given mutant on; what each is caught by is printed. Returns how many are not caught. */
export function tryMutants(root: string, seeds: number, from: number): number {
  let survivors = 0;
  for (const mutant of MUTANTS.slice(from - 1)) {
    const { isCaught, by } = withMutant(root, mutant, (copy) => runLives(copy, seeds));
    if (!isCaught) survivors++;
    console.log(`${isCaught ? "caught    " : "NOT CAUGHT"}  ${mutant.name}: ${by}`);
  }
  return survivors;
}

/** The text with the change; throws when that has no place in it, or several. */
export function mutate(text: string, { file, text: place, becomes }: Change): string {
  const parts = text.split(place);
  if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} places for ${JSON.stringify(place)}`);
  return parts.join(becomes);
}

export function changesOf(mutant: Mutant): readonly Change[] {
  return mutant.and === undefined ? [mutant] : [mutant, mutant.and];
}

function withMutant<T>(root: string, mutant: Mutant, act: (copy: string) => T): T {
  const copy = mkdtempSync(join(tmpdir(), "pilot-tun-mutant-"));
  try {
    for (const part of ["src", "test/scenarios", "test/helpers", "package.json"]) {
      cpSync(join(root, part), join(copy, part), { recursive: true });
    }
    for (const part of ["node_modules", "dist"]) symlinkSync(join(root, part), join(copy, part));
    for (const change of changesOf(mutant)) {
      const file = join(copy, change.file);
      writeFileSync(file, mutate(readFileSync(file, "utf8"), change));
    }
    return act(copy);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

/** By the first violation that some life shows, with its seed. A mutant that does not run at all says nothing about invariants. */
function runLives(copy: string, seeds: number): { readonly isCaught: boolean; readonly by: string } {
  try {
    const args = [join(copy, "test/scenarios/main.ts"), "--seeds", String(seeds), "--first"];
    execFileSync(process.execPath, args, { encoding: "utf8", stdio: "pipe" });
    return { isCaught: false, by: `none of ${seeds} lives` };
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    const by = /^seed (.*) does not hold/m.exec(stdout ?? "")?.[1];
    return { isCaught: by !== undefined, by: by ?? `it does not run: ${(stderr ?? String(error)).slice(0, 600)}` };
  }
}
