/**
 * The policy's life: read at the start, replaced by `apply` or a changed file, taken back when nobody confirms, overruled
 * by a lockdown. What is in force changes only as a whole; a policy with one mistake or one failed test is not put in
 * force, and the running one stays.
 */
import { createHash } from "node:crypto";
import type { Fields } from "../audit/record.ts";
import type { Instant, WallClock } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import { isoUtc } from "../base/utc.ts";
import type { PeerIdentity } from "../control/api.ts";
import {
  type FlowKillReply,
  type FlowKillRequest,
  type FlowStatus,
  type FlowsReply,
  type LockdownReply,
  type LockdownRequest,
  type LockdownStatus,
  MAX_LISTED_CUTS,
  MAX_LISTED_FLOWS,
  type PolicyApplyRequest,
  type PolicyBackend,
  type PolicyChangeReply,
  type PolicyCheckReply,
  type PolicyCheckRequest,
  type PolicyShowReply,
} from "../control/policy-api.ts";
import type { Engine } from "../engine/engine.ts";
import { now, wallNow } from "../io/clock.ts";
import type { StateDirectory } from "../io/state-directory.ts";
import type { PeerFacts } from "../policy/evaluate.ts";
import type { Flow } from "../policy/flow-table.ts";
import type { PolicySource } from "../policy/parse-policy.ts";
import { type Lockdown, Policy } from "../policy/policy.ts";
import type { Rule, Selector } from "../policy/rule.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { type NodeId, nodeId } from "../wire/ids.ts";
import { programSight, readAccounts } from "./accounts.ts";
import { flowStatuses, placeOf } from "./flow-status.ts";
import { type CheckedPolicy, checkPolicy, checkReply, sourcesToCheck } from "./policy-check.ts";
import { missingPolicy, readCandidate, readPolicyFiles, writePolicyFile } from "./policy-files.ts";
import type { SocketOwners } from "./socket-owners.ts";

export interface PolicyRequestParts {
  readonly policyFile: { readonly path: string; readonly mustExist: boolean };
  readonly engine: Engine;
  readonly book: TrustBook;
  readonly state: Pick<StateDirectory, "load" | "save">;
  readonly owners: Pick<SocketOwners, "find">;
  input<T>(act: (at: Instant) => T): T;
  find(text: string, signal: AbortSignal): Promise<NodeId>;
  identity(node: NodeId): PeerIdentity;
  /** For the audit log; `automatic`: nobody asked for it. */
  noteChange(change: string, facts: Fields, automatic?: boolean): void;
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
  #lastTurn: Promise<unknown> = Promise.resolve();

  constructor(parts: PolicyRequestParts) {
    this.#parts = parts;
  }

  /** Before the first packet. Throws PilotError `policy_invalid`, `policy_missing`, `policy_unreadable`. */
  async start(): Promise<void> {
    const { policyFile, engine, state } = this.#parts;
    const sources = readPolicyFiles(policyFile.path);
    if (sources === undefined && policyFile.mustExist) throw missingPolicy(policyFile.path);
    if (sources !== undefined) engine.admission.replaceRules(await this.#accept(sources), now());
    const stored = state.load("lockdown.json", parseLockdown);
    if (stored.problem !== undefined) engine.problems.set(stored.problem.code, stored.problem);
    // A record of a lockdown that cannot be read was one: it stays until lifted.
    const unreadable = stored.problem && { except: [], since: wallNow(), until: undefined };
    const lockdown = stored.value?.lockdown ?? unreadable;
    if (lockdown !== undefined) engine.admission.setLockdown(lockdown, now());
    const { rules } = engine.admission.policy;
    this.#parts.noteChange("start", { ...digestOf(rules), lockdown: lockdown !== undefined }, true);
  }

  close(): void {
    clearTimeout(this.#trial?.timer);
    this.#trial = undefined;
  }

  async check({ path }: PolicyCheckRequest): Promise<PolicyCheckReply> {
    const { policyFile, engine } = this.#parts;
    const checked = await this.#check(sourcesToCheck(path, policyFile.path));
    if (checked.parsed.problems.length > 0) return checkReply(checked, { wouldCut: [], wouldCutFlows: 0 });
    await this.#learnOwnersFor(checked.parsed.rules);
    const candidate = new Policy();
    candidate.replace(checked.parsed.rules, wallNow());
    const cut = engine.admission.preview(candidate, now());
    return checkReply(checked, { wouldCut: this.#listed(cut), wouldCutFlows: cut.length });
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

  async apply(request: PolicyApplyRequest): Promise<PolicyChangeReply> {
    return await this.#inTurn(() => this.#apply(request));
  }

  async #apply({ path, confirmMs }: PolicyApplyRequest): Promise<PolicyChangeReply> {
    const { policyFile, engine } = this.#parts;
    if (this.#trial !== undefined) throw trialRuns();
    const sources = readCandidate(path, policyFile.path);
    const rules = await this.#accept(sources);
    await this.#learnOwnersFor(rules);
    const before = engine.admission.policy.rules;
    const kept = path === policyFile.path ? undefined : sources[0];
    // The file first: what is in force without being kept would be gone at the next start.
    if (confirmMs === undefined) this.#keep(kept);
    const reply = this.#replace(rules, "apply", { file: path, confirmWithinMs: confirmMs ?? null });
    if (confirmMs === undefined) return reply;
    const timer = setTimeout(() => this.#takeBack("not-confirmed", true), confirmMs);
    this.#trial = { before, kept, endsAt: (now() + confirmMs) as Instant, timer };
    return { ...reply, confirmWithinS: this.#confirmWithinS() };
  }

  async confirm(): Promise<PolicyChangeReply> {
    return await this.#inTurn(() => this.#confirm());
  }

  #confirm(): PolicyChangeReply {
    const trial = this.#demandTrial();
    this.#keep(trial.kept);
    this.close();
    const { rules } = this.#parts.engine.admission.policy;
    this.#parts.noteChange("confirm", digestOf(rules));
    return { rules: rules?.length ?? 0, cut: [], cutFlows: 0, confirmWithinS: null };
  }

  async rollback(): Promise<PolicyChangeReply> {
    return await this.#inTurn(() => {
      this.#demandTrial();
      return this.#takeBack("rollback");
    });
  }

  async reload(): Promise<PolicyChangeReply> {
    return await this.#inTurn(() => this.#reload());
  }

  async #reload(): Promise<PolicyChangeReply> {
    const { policyFile, engine } = this.#parts;
    if (this.#trial !== undefined) throw trialRuns();
    const sources = readPolicyFiles(policyFile.path);
    // Files that are gone must not open what they closed.
    if (sources === undefined && engine.admission.policy.rules !== undefined) throw missingPolicy(policyFile.path);
    if (sources === undefined) return { rules: 0, cut: [], cutFlows: 0, confirmWithinS: null };
    const rules = await this.#accept(sources);
    await this.#learnOwnersFor(rules);
    return this.#replace(rules, "reload");
  }

  async flows(): Promise<FlowsReply> {
    const { admission } = this.#parts.engine;
    await this.#learnOwners(admission.recent(MAX_LISTED_FLOWS, now()).flows);
    const { flows, total } = admission.recent(MAX_LISTED_FLOWS, now());
    return { flows: this.#statusOf(flows), total };
  }

  async kill({ id }: FlowKillRequest): Promise<FlowKillReply> {
    const [known] = this.#statusOf(this.#parts.engine.admission.list(now()).filter((flow) => flow.id === id));
    if (known !== undefined && this.#parts.input(() => this.#parts.engine.admission.kill(id)) !== undefined) {
      this.#parts.noteChange("kill", { id, peer: known.peer, protocol: known.protocol });
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
    const term = { except, until: until === undefined ? null : isoUtc(until) };
    this.#parts.noteChange(request.on ? "lockdown" : "lockdown-lifted", {
      ...(request.on ? term : {}),
      cut: cut.length,
    });
    state.save("lockdown.json", lockdown === undefined ? { version: 1 } : { version: 1, ...lockdown });
    const status = lockdown === undefined ? null : this.#lockdownStatus(lockdown);
    return { lockdown: status, cut: this.#listed(cut), cutFlows: cut.length };
  }

  // ---- inside

  /** Changes take turns: each looks at files and flows for a while, and none may see another's half. */
  async #inTurn<T>(act: () => T | Promise<T>): Promise<T> {
    const turn = this.#lastTurn.then(act);
    this.#lastTurn = turn.catch(() => undefined);
    return await turn;
  }

  async #check(sources: readonly PolicySource[]): Promise<CheckedPolicy> {
    return await checkPolicy(sources, readAccounts(programSight()), (selector) => this.#peerOf(selector));
  }

  /** Rules without a mistake; throws PilotError `policy_invalid` with all there is. */
  async #accept(sources: readonly PolicySource[]): Promise<readonly Rule[]> {
    const { parsed, failedTests } = await this.#check(sources);
    const mistakes = parsed.problems.map(
      ({ file, line, column, message, hint }) => `${file}:${line}:${column}: ${message}. ${hint}`,
    );
    if (mistakes.length > 0) throw invalid(mistakes);
    const failed = failedTests.map(({ file, line, text, decidedBy }) => {
      const why =
        decidedBy === null ? "no rule matches" : `${decidedBy.file}:${decidedBy.line} decides: ${decidedBy.text}`;
      return `${file}:${line}: the test fails: ${text} (${why})`;
    });
    if (failed.length > 0) throw invalid(failed);
    return parsed.rules;
  }

  /** Live flows are judged again by rules about programs: that needs to be known of those that began without. */
  async #learnOwnersFor(rules: readonly Rule[]): Promise<void> {
    const { admission } = this.#parts.engine;
    if (rules.some((rule) => rule.owner !== undefined)) await this.#learnOwners(admission.list(now()));
  }

  async #learnOwners(flows: readonly Flow[]): Promise<void> {
    const { engine, owners } = this.#parts;
    const unknown = flows.filter((flow) => flow.owner?.programs[0] === undefined);
    const found = await owners.find(unknown.map((flow) => placeOf(flow, engine.prefix)));
    unknown.forEach((flow, index) => {
      const owner = found[index];
      if (owner !== undefined) engine.admission.noteOwner(flow, owner);
    });
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
      if (isMeant) return { node, name: record?.hostname, fingerprint, tags: engine.gate.tags.of(node) };
    }
    return undefined;
  }

  #replace(
    rules: readonly Rule[] | undefined,
    change: string,
    facts: Fields = {},
    automatic = false,
  ): PolicyChangeReply {
    const { engine, input } = this.#parts;
    const cut = input((at) => engine.admission.replaceRules(rules, at));
    this.#parts.noteChange(change, { ...facts, ...digestOf(rules), cut: cut.length }, automatic);
    return { rules: rules?.length ?? 0, cut: this.#listed(cut), cutFlows: cut.length, confirmWithinS: null };
  }

  #takeBack(change: string, automatic = false): PolicyChangeReply {
    const before = this.#trial?.before;
    this.close();
    return this.#replace(before, change, {}, automatic);
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

  #listed(cut: readonly Flow[]): FlowStatus[] {
    return this.#statusOf(cut.slice(0, MAX_LISTED_CUTS));
  }

  #statusOf(flows: readonly Flow[]): FlowStatus[] {
    return flowStatuses(flows, this.#parts);
  }
}

export function parseLockdown(json: unknown): { lockdown: Lockdown | undefined } | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  const { version, except, since, until } = json as Record<string, unknown>;
  if (version !== 1) return undefined;
  if (except === undefined) return { lockdown: undefined };
  const isWhole = (value: unknown): value is number => Number.isSafeInteger(value);
  if (!Array.isArray(except) || !except.every(isWhole) || !isWhole(since)) return undefined;
  if (until !== undefined && !isWhole(until)) return undefined;
  return { lockdown: { except: except.map(nodeId), since: since as WallClock, until: until as WallClock | undefined } };
}

/** Tells two policies apart without repeating them: SHA-256 over the rules as they are written. */
function digestOf(rules: readonly Rule[] | undefined): Fields {
  if (rules === undefined) return { rules: null, digest: null };
  const hash = createHash("sha256");
  for (const { text } of rules) hash.update(`${text}\n`);
  return { rules: rules.length, digest: `SHA256:${hash.digest("base64").replace(/=+$/, "")}` };
}

function invalid(mistakes: readonly string[]): PilotError {
  const more = mistakes.length > SHOWN_MISTAKES ? `\n… and ${mistakes.length - SHOWN_MISTAKES} more` : "";
  const message = `The policy is not put in force:\n${mistakes.slice(0, SHOWN_MISTAKES).join("\n")}${more}`;
  return new PilotError("policy_invalid", message, "Mend the lines named; pilot-tun policy check FILE shows them all.");
}

function trialRuns(): PilotError {
  return new PilotError(
    "needs_confirmation",
    "An applied policy waits to be confirmed",
    "Run pilot-tun policy confirm or policy rollback first.",
  );
}

const SHOWN_MISTAKES = 20;
