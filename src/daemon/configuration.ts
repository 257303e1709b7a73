/**
 * What the daemon was configured with, and what a changed file changes. Two settings can change while it runs; a changed
 * value of any other is reported, by the answer and by `status`, until the daemon is started anew or the file says again
 * what is in force.
 */
import { PilotError } from "../base/pilot-error.ts";
import type { ConfigBackend, ConfigShowReply, ReloadReply } from "../control/config-api.ts";
import type { PolicyChangeReply } from "../control/policy-api.ts";
import type { Engine } from "../engine/engine.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { ConfigurationSource, Reread } from "./up-options.ts";

export interface ConfigurationParts {
  readonly source: ConfigurationSource;
  readonly client: Pick<RegistryClient, "setHostname" | "setVisibility" | "setTags">;
  readonly hostname: string | undefined;
  readonly problems: Engine["problems"];
  reloadPolicy(): Promise<PolicyChangeReply>;
  /** The client of the registry has something to send. */
  pump(): void;
}

export class Configuration implements ConfigBackend {
  readonly #parts: ConfigurationParts;
  /** Key: setting. Bound: the options of `up`. */
  readonly #inForce: Map<string, string>;
  /** The name to register; undefined keeps the one of the last registration. */
  hostname: string | undefined;

  constructor(parts: ConfigurationParts) {
    this.#parts = parts;
    this.#inForce = new Map(parts.source.settings);
    this.hostname = parts.hostname;
  }

  async show(): Promise<ConfigShowReply> {
    const settings = [...this.#inForce].map(([key, value]) => ({ key, value, takesEffect: takesEffect(key) }));
    return { file: this.#parts.source.path, settings };
  }

  /** Throws PilotError `config_invalid`, or what the policy has to say; a bad file changes nothing. */
  async reload(): Promise<ReloadReply> {
    const again = this.#reread();
    const policy = await this.#parts.reloadPolicy();
    const changed = [...again.settings].filter(([key, value]) => this.#inForce.get(key) !== value);
    const applied = changed.filter(([key]) => takesEffect(key) === "reload");
    for (const [key, value] of applied) {
      this.#apply(key, again);
      this.#inForce.set(key, value);
    }
    if (applied.length > 0) this.#parts.pump();
    const needRestart = changed.map(([key]) => key).filter((key) => takesEffect(key) === "restart");
    this.#reportRestart(needRestart);
    return { applied: applied.map(([key]) => key), needRestart, policy };
  }

  /** On a signal there is nobody to answer: what is wrong is shown by `status`. */
  reloadBySignal(): void {
    const { problems } = this.#parts;
    this.reload().then(
      () => void problems.delete(NOT_RELOADED),
      (error: unknown) => {
        const { message, hint } = error instanceof PilotError ? error : { message: String(error), hint: "" };
        problems.set(NOT_RELOADED, { code: NOT_RELOADED, message: `What was in force stays: ${message}`, hint });
        process.stderr.write(`not reloaded: ${message}\n`);
      },
    );
  }

  #reread(): Reread {
    try {
      return this.#parts.source.reread();
    } catch (error) {
      const hint = "Run pilot-tun up --check with the same options; what was in force stays.";
      throw new PilotError("config_invalid", (error as Error).message, hint);
    }
  }

  #apply(key: string, again: Reread): void {
    if (key === "public") this.#parts.client.setVisibility(again.public);
    if (key === "tags") this.#parts.client.setTags(again.tags ?? []);
    if (key !== "hostname") return;
    this.hostname = again.hostname;
    if (again.hostname !== undefined) this.#parts.client.setHostname(again.hostname);
  }

  #reportRestart(keys: readonly string[]): void {
    const { problems, source } = this.#parts;
    if (keys.length === 0) return void problems.delete(RESTART_NEEDED);
    const message = `${source.path} has another ${keys.join(", ")} than what is in force`;
    const hint = "Restart the daemon when it suits; established connections survive that.";
    problems.set(RESTART_NEEDED, { code: RESTART_NEEDED, message, hint });
  }
}

/** Everything else is part of sockets, of the interface or of the engine as they were made. */
const RELOADED: ReadonlySet<string> = new Set(["hostname", "public", "tags"]);

function takesEffect(key: string): "reload" | "restart" {
  return RELOADED.has(key) ? "reload" : "restart";
}

const NOT_RELOADED = "not_reloaded";
const RESTART_NEEDED = "restart_needed";
