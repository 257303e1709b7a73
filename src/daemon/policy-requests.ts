/**
 * The policy's life: read at the start, replaced by `apply` or a changed file, taken back when nobody confirms, overruled
 * by a lockdown. What is in force changes only as a whole; a policy with one mistake or one failed test is not put in
 * force, and the running one stays.
 */
import type { Instant, WallClock } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { PeerIdentity } from "../control/api.ts";
import type {
  FlowKillReply,
  FlowKillRequest,
  FlowStatus,
  FlowsReply,
  LockdownReply,
  LockdownRequest,
  LockdownStatus,
  PolicyApplyRequest,
  PolicyBackend,
  PolicyChangeReply,
  PolicyCheckReply,
  PolicyCheckRequest,
  PolicyShowReply,
  WhyReply,
  WhyRequest,
} from "../control/policy-api.ts";
import type { Engine } from "../engine/engine.ts";
import { now, wallNow } from "../io/clock.ts";
import type { StateDirectory } from "../io/state-directory.ts";
import { failedTests, type PeerFacts } from "../policy/evaluate.ts";
import type { Flow } from "../policy/flow-table.ts";
import { type ParsedPolicy, type PolicySource, parsePolicy } from "../policy/parse-policy.ts";
import { type Lockdown, Policy } from "../policy/policy.ts";
import type { Rule, Selector } from "../policy/rule.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { type NodeId, nodeId } from "../wire/ids.ts";
import { readAccounts } from "./accounts.ts";
import { flowStatuses } from "./flow-status.ts";
import { readCandidate, readPolicyFiles, writePolicyFile } from "./policy-files.ts";
import { explain } from "./why.ts";

export interface PolicyRequestParts {
  readonly policyFile: { readonly path: string; readonly mustExist: boolean };
  readonly engine: Engine;
  readonly book: TrustBook;
  readonly state: Pick<StateDirectory, "load" | "save">;
  input<T>(act: (at: Instant) => T): T;
  find(text: string, signal: AbortSignal): Promise<NodeId>;
  identity(node: NodeId): PeerIdentity;
}

/** Applied, and to be taken back unless confirmed. */
interface Trial {
  readonly before: readonly Rule[] | undefined;
  /** What is kept when it is confirmed; undefined: it stands in its place already. */
  readonly kept: PolicySource | undefined;
  readonly endsAt: Instant;
  readonly timer: NodeJS.Timeout;
}

export class PolicyRequests implements PolicyBackend {
  readonly #parts: PolicyRequestParts;
  #trial: Trial | undefined;

  constructor(parts: PolicyRequestParts) {
    this.#parts = parts;
  }

  /** Before the first packet. Throws PilotError `policy_invalid`, `policy_missing`, `policy_unreadable`. */
  start(): void {
    const { policyFile, engine, state } = this.#parts;
    const sources = readPolicyFiles(policyFile.path);
    if (sources === undefined && policyFile.mustExist) throw missing(policyFile.path);
    if (sources !== undefined) engine.admission.replaceRules(this.#accept(parsePolicy(sources, readAccounts())), now());
    const stored = state.load("lockdown.json", parseLockdown);
    if (stored.problem !== undefined) engine.problems.set(stored.problem.code, stored.problem);
    // A record of a lockdown that cannot be read was one: it stays until lifted.
    const unreadable = stored.problem && { except: [], since: wallNow(), until: undefined };
    const lockdown = stored.value?.lockdown ?? unreadable;
    if (lockdown !== undefined) engine.admission.setLockdown(lockdown, now());
  }

  close(): void {
    clearTimeout(this.#trial?.timer);
    this.#trial = undefined;
  }

  async check({ path }: PolicyCheckRequest): Promise<PolicyCheckReply> {
    const { policyFile, engine } = this.#parts;
    const sources = path === undefined ? readPolicyFiles(policyFile.path) : readCandidate(path, policyFile.path);
    if (sources === undefined) throw missing(policyFile.path);
    const parsed = parsePolicy(sources, readAccounts());
    const isSound = parsed.problems.length === 0;
    const candidate = new Policy();
    candidate.replace(parsed.rules, wallNow());
    return {
      rules: parsed.rules.length,
      tests: parsed.tests.length,
      mistakes: parsed.problems.map((problem) => ({ ...problem })),
      failedTests: isSound ? this.#failedTests(parsed) : [],
      wouldCut: isSound ? this.#statusOf(engine.admission.preview(candidate, now())) : [],
    };
  }

  async show(): Promise<PolicyShowReply> {
    const { engine, policyFile } = this.#parts;
    const { rules, lockdown } = engine.admission.policy;
    const wall = wallNow();
    return {
      source: rules === undefined ? "none" : "files",
      file: policyFile.path,
      rules: (rules ?? []).map(({ source, text, until }) => ({
        file: source.file,
        line: source.line,
        text,
        endsInS: until === undefined ? null : Math.ceil((until - wall) / 1000),
      })),
      confirmWithinS: this.#confirmWithinS(),
      lockdown: lockdown === undefined ? null : this.#lockdownStatus(lockdown),
    };
  }

  async apply({ path, confirmMs }: PolicyApplyRequest): Promise<PolicyChangeReply> {
    const { policyFile, engine } = this.#parts;
    if (this.#trial !== undefined) throw trialRuns();
    const sources = readCandidate(path, policyFile.path);
    const rules = this.#accept(parsePolicy(sources, readAccounts()));
    const before = engine.admission.policy.rules;
    const kept = path === policyFile.path ? undefined : sources[0];
    // The file first: what is in force without being kept would be gone at the next start.
    if (confirmMs === undefined) this.#keep(kept);
    const reply = this.#replace(rules);
    if (confirmMs === undefined) return reply;
    const timer = setTimeout(() => this.#takeBack(), confirmMs);
    this.#trial = { before, kept, endsAt: (now() + confirmMs) as Instant, timer };
    return { ...reply, confirmWithinS: this.#confirmWithinS() };
  }

  async confirm(): Promise<PolicyChangeReply> {
    const trial = this.#demandTrial();
    this.#keep(trial.kept);
    this.close();
    return { rules: this.#parts.engine.admission.policy.rules?.length ?? 0, cut: [], confirmWithinS: null };
  }

  async rollback(): Promise<PolicyChangeReply> {
    this.#demandTrial();
    return this.#takeBack();
  }

  async reload(): Promise<PolicyChangeReply> {
    const { policyFile, engine } = this.#parts;
    if (this.#trial !== undefined) throw trialRuns();
    const sources = readPolicyFiles(policyFile.path);
    // Files that are gone must not open what they closed.
    if (sources === undefined && engine.admission.policy.rules !== undefined) throw missing(policyFile.path);
    if (sources === undefined) return { rules: 0, cut: [], confirmWithinS: null };
    return this.#replace(this.#accept(parsePolicy(sources, readAccounts())));
  }

  async flows(): Promise<FlowsReply> {
    return { flows: this.#statusOf(this.#parts.engine.admission.list(now())) };
  }

  async kill({ id }: FlowKillRequest): Promise<FlowKillReply> {
    const [known] = this.#statusOf(this.#parts.engine.admission.list(now()).filter((flow) => flow.id === id));
    if (known !== undefined && this.#parts.input(() => this.#parts.engine.admission.kill(id)) !== undefined) {
      return { flow: known };
    }
    throw new PilotError("unknown_flow", `There is no flow ${id}`, "See pilot-tun flows.");
  }

  async lockdown(request: LockdownRequest, signal: AbortSignal): Promise<LockdownReply> {
    const { engine, state } = this.#parts;
    const except = await Promise.all((request.except ?? []).map((peer) => this.#parts.find(peer, signal)));
    const since = wallNow();
    const until = request.forMs === undefined ? undefined : ((since + request.forMs) as WallClock);
    const lockdown: Lockdown | undefined = request.on ? { except, since, until } : undefined;
    const cut = this.#parts.input((at) => engine.admission.setLockdown(lockdown, at));
    state.save("lockdown.json", lockdown === undefined ? { version: 1 } : { version: 1, ...lockdown });
    return { lockdown: lockdown === undefined ? null : this.#lockdownStatus(lockdown), cut: this.#statusOf(cut) };
  }

  async why(request: WhyRequest, signal: AbortSignal): Promise<WhyReply> {
    return await explain(request, this.#parts, signal);
  }

  // ---- inside

  /** Rules without a mistake; throws PilotError `policy_invalid` with all there is. */
  #accept(parsed: ParsedPolicy): readonly Rule[] {
    const mistakes = parsed.problems.map(
      ({ file, line, column, message, hint }) => `${file}:${line}:${column}: ${message}. ${hint}`,
    );
    for (const { owner, peer, source } of parsed.rules) {
      if (owner === undefined && peer.kind !== "tag") continue;
      mistakes.push(`${source.file}:${source.line}: programs and tags are not known yet: no rule may name them`);
    }
    if (mistakes.length > 0) throw invalid(mistakes);
    const failed = this.#failedTests(parsed).map(({ file, line, text, decidedBy }) => {
      const why =
        decidedBy === null ? "no rule matches" : `${decidedBy.file}:${decidedBy.line} decides: ${decidedBy.text}`;
      return `${file}:${line}: the test fails: ${text} (${why})`;
    });
    if (failed.length > 0) throw invalid(failed);
    return parsed.rules;
  }

  #failedTests({ rules, tests }: ParsedPolicy): PolicyCheckReply["failedTests"] {
    const failed = failedTests(rules, tests, (selector) => this.#peerOf(selector), wallNow());
    return failed.map(({ test, rule }) => ({
      file: test.source.file,
      line: test.source.line,
      text: test.text,
      decidedBy: rule === undefined ? null : { file: rule.source.file, line: rule.source.line, text: rule.text },
    }));
  }

  /** The trusted peer that a test speaks of. */
  #peerOf(selector: Selector): PeerFacts | undefined {
    const { book, engine } = this.#parts;
    for (const node of book.nodesIn("mutual")) {
      const record = book.get(node);
      const fingerprint = engine.admission.fingerprintOf(record);
      const isMeant =
        (selector.kind === "name" && record?.hostname === selector.name) ||
        (selector.kind === "address" && selector.address.node === node) ||
        (selector.kind === "key" && selector.fingerprint === fingerprint);
      if (isMeant) return { node, name: record?.hostname, fingerprint, tags: [] };
    }
    return undefined;
  }

  #replace(rules: readonly Rule[] | undefined): PolicyChangeReply {
    const { engine, input } = this.#parts;
    const cut = input((at) => engine.admission.replaceRules(rules, at));
    return { rules: rules?.length ?? 0, cut: this.#statusOf(cut), confirmWithinS: null };
  }

  #takeBack(): PolicyChangeReply {
    const before = this.#trial?.before;
    this.close();
    return this.#replace(before);
  }

  #demandTrial(): Trial {
    if (this.#trial !== undefined) return this.#trial;
    throw new PilotError(
      "nothing_applied",
      "No policy waits to be confirmed",
      "Apply one: policy apply FILE --confirm 60s.",
    );
  }

  #keep(source: PolicySource | undefined): void {
    if (source !== undefined) writePolicyFile(this.#parts.policyFile.path, source);
  }

  #confirmWithinS(): number | null {
    return this.#trial === undefined ? null : Math.max(0, Math.ceil((this.#trial.endsAt - now()) / 1000));
  }

  #lockdownStatus({ except, since, until }: Lockdown): LockdownStatus {
    const wall = wallNow();
    return {
      except: except.map((node) => this.#parts.identity(node)),
      sinceS: Math.max(0, Math.round((wall - since) / 1000)),
      endsInS: until === undefined ? null : Math.max(0, Math.ceil((until - wall) / 1000)),
    };
  }

  #statusOf(flows: readonly Flow[]): FlowStatus[] {
    return flowStatuses(flows, this.#parts);
  }
}

function parseLockdown(json: unknown): { lockdown: Lockdown | undefined } | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  const { version, except, since, until } = json as Record<string, unknown>;
  if (version !== 1) return undefined;
  if (except === undefined) return { lockdown: undefined };
  const isWhole = (value: unknown): value is number => Number.isSafeInteger(value);
  if (!Array.isArray(except) || !except.every(isWhole) || !isWhole(since)) return undefined;
  if (until !== undefined && !isWhole(until)) return undefined;
  return { lockdown: { except: except.map(nodeId), since: since as WallClock, until: until as WallClock | undefined } };
}

function invalid(mistakes: readonly string[]): PilotError {
  const more = mistakes.length > SHOWN_MISTAKES ? `\n… and ${mistakes.length - SHOWN_MISTAKES} more` : "";
  const message = `The policy is not put in force:\n${mistakes.slice(0, SHOWN_MISTAKES).join("\n")}${more}`;
  return new PilotError("policy_invalid", message, "Mend the lines named; pilot-tun policy check FILE shows them all.");
}

function missing(path: string): PilotError {
  return new PilotError(
    "policy_missing",
    `There is no policy at ${path}`,
    "Write one. To let trusted peers do everything: allow in any from trusted, and allow out any to trusted.",
  );
}

function trialRuns(): PilotError {
  return new PilotError(
    "needs_confirmation",
    "An applied policy waits to be confirmed",
    "Run pilot-tun policy confirm or policy rollback first.",
  );
}

const SHOWN_MISTAKES = 20;
