/**
 * The policy in force: rules from files, or none, and above both a lockdown. Without a policy every trusted peer reaches
 * every port; with one, what no rule allows is denied. Whether a peer is trusted at all is not decided here.
 *
 * Verdicts are rule numbers, so that a flow can say years later which line let it in; numbers hold until `replace`.
 */
import type { WallClock } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";
import { CompiledPolicy, NO_RULE } from "./compiled-policy.ts";
import type { FlowFacts, Rule } from "./rule.ts";

/** Denied: no rule matches. */
export { NO_RULE };
/** Allowed: there is no policy. */
export const NO_POLICY = -2;
/** Denied, whatever the rules say. */
export const LOCKED_DOWN = -3;

export interface Lockdown {
  /** The rules go on for these. Bound: what an operator names. */
  readonly except: readonly NodeId[];
  readonly since: WallClock;
  /** Undefined: until lifted. */
  readonly until: WallClock | undefined;
}

export class Policy {
  /** The verdict of the last packet that was refused because of a rule, or for want of one. */
  refusedBy = NO_RULE;
  #compiled: CompiledPolicy | undefined;
  #lockdown: Lockdown | undefined;

  /** Undefined: no policy. */
  get rules(): readonly Rule[] | undefined {
    return this.#compiled?.rules;
  }

  get lockdown(): Lockdown | undefined {
    return this.#lockdown;
  }

  /** Verdicts given before count no longer. */
  replace(rules: readonly Rule[] | undefined, now: WallClock): void {
    this.#compiled = rules === undefined ? undefined : new CompiledPolicy(rules, now);
  }

  setLockdown(lockdown: Lockdown | undefined): void {
    this.#lockdown = lockdown;
  }

  /** The number of the rule that decides, or one of the constants above. */
  judge(flow: FlowFacts): number {
    if (this.#isLockedFor(flow)) return LOCKED_DOWN;
    return this.#compiled === undefined ? NO_POLICY : this.#compiled.decide(flow);
  }

  /** Whether `judge` may answer otherwise once it knows whose local socket it is. */
  ownerMatters(flow: FlowFacts): boolean {
    return this.#isLockedFor(flow) ? false : (this.#compiled?.ownerMatters(flow) ?? false);
  }

  get asksForTags(): boolean {
    return this.#compiled?.asksForTags ?? false;
  }

  /** Some rule asks for the programs behind a socket, not for its user alone. */
  get asksForPrograms(): boolean {
    return this.#compiled?.asksForPrograms ?? false;
  }

  allows(verdict: number): boolean {
    return verdict === NO_POLICY || this.ruleOf(verdict)?.action === "allow";
  }

  ruleOf(verdict: number): Rule | undefined {
    return this.#compiled?.rules[verdict];
  }

  /** When verdicts may change by the mere passing of time. */
  get expiresAt(): WallClock | undefined {
    const rules = this.#compiled?.expiresAt;
    const lockdown = this.#lockdown?.until;
    if (rules === undefined || lockdown === undefined) return rules ?? lockdown;
    return rules < lockdown ? rules : lockdown;
  }

  /** The clock jumped, perhaps backwards: all ends are looked at anew. True when there are any. */
  reconsider(now: WallClock): boolean {
    const isOver = this.#lockdown?.until !== undefined && this.#lockdown.until <= now;
    if (isOver) this.#lockdown = undefined;
    const hasEnds = this.rules?.some((rule) => rule.until !== undefined) ?? false;
    if (hasEnds) this.replace(this.rules, now);
    return hasEnds || isOver;
  }

  /** True when something ended, so that verdicts given before count no longer. */
  expire(now: WallClock): boolean {
    if (this.expiresAt === undefined || this.expiresAt > now) return false;
    if (this.#lockdown?.until !== undefined && this.#lockdown.until <= now) this.#lockdown = undefined;
    const expiresAt = this.#compiled?.expiresAt;
    if (expiresAt !== undefined && expiresAt <= now) this.replace(this.rules, now);
    return true;
  }

  #isLockedFor(flow: FlowFacts): boolean {
    return this.#lockdown !== undefined && !this.#lockdown.except.includes(flow.node);
  }
}
