/** A policy's mistakes and the tests that it fails; also without a daemon, of which then nothing is known but its files. */
import type { FailedTest, PolicyCheckReply } from "../control/policy-api.ts";
import { wallNow } from "../io/clock.ts";
import { failedTests, type PeerFacts } from "../policy/evaluate.ts";
import { type ParsedPolicy, type PolicySource, parseInSteps } from "../policy/parse-policy.ts";
import type { Accounts } from "../policy/parse-selector.ts";
import type { Selector } from "../policy/rule.ts";
import { readAccounts } from "./accounts.ts";
import { missingPolicy, readCandidate, readPolicyFiles } from "./policy-files.ts";

export interface CheckedPolicy {
  readonly parsed: ParsedPolicy;
  /** Empty while there are mistakes. */
  readonly failedTests: readonly FailedTest[];
}

/** `peerOf` knows the other names of peers that tests speak of. Packets go on meanwhile. */
export async function checkPolicy(
  sources: readonly PolicySource[],
  accounts: Accounts,
  peerOf: (selector: Selector) => PeerFacts | undefined,
): Promise<CheckedPolicy> {
  const parsed = await parse(sources, accounts);
  if (parsed.problems.length > 0) return { parsed, failedTests: [] };
  const failed = failedTests(parsed.rules, parsed.tests, peerOf, wallNow()).map(({ test, rule }) => ({
    file: test.source.file,
    line: test.source.line,
    text: test.text,
    decidedBy: rule === undefined ? null : { file: rule.source.file, line: rule.source.line, text: rule.text },
  }));
  return { parsed, failedTests: failed };
}

async function parse(sources: readonly PolicySource[], accounts: Accounts): Promise<ParsedPolicy> {
  const steps = parseInSteps(sources, accounts, LINES_AT_ONCE);
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) return step.value;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

export function checkReply(
  { parsed, failedTests: failed }: CheckedPolicy,
  consequences: Pick<PolicyCheckReply, "wouldCut" | "wouldCutFlows">,
): PolicyCheckReply {
  const mistakes = parsed.problems.map((problem) => ({ ...problem }));
  return { rules: parsed.rules.length, tests: parsed.tests.length, mistakes, failedTests: failed, ...consequences };
}

/** `path` in place of `file`, if given. Throws PilotError when there is nothing to check. */
export function sourcesToCheck(path: string | undefined, file: string): PolicySource[] {
  const sources = path === undefined ? readPolicyFiles(file) : readCandidate(path, file);
  if (sources === undefined) throw missingPolicy(file);
  return sources;
}

/** While no daemon runs, whom a test means is known by what the test says alone, and nothing lives that could be cut. */
export async function checkWithoutDaemon(path: string | undefined, file: string): Promise<PolicyCheckReply> {
  const checked = await checkPolicy(sourcesToCheck(path, file), readAccounts(), () => undefined);
  return checkReply(checked, { wouldCut: null, wouldCutFlows: null });
}

/** A few milliseconds' work. */
const LINES_AT_ONCE = 250;
