/** The part of the local API that is about the daemon's configuration. */
import type { PolicyChangeReply } from "./policy-api.ts";

type Empty = Readonly<Record<never, never>>;

export interface ConfigMethods {
  "config/show": { request: Empty; reply: ConfigShowReply };
  /** The configuration file and the policy, read again. */
  reload: { request: Empty; reply: ReloadReply };
}

export interface ConfigBackend {
  show(request: Empty, signal: AbortSignal): Promise<ConfigShowReply>;
  reload(request: Empty, signal: AbortSignal): Promise<ReloadReply>;
}

export interface ConfigShowReply {
  /** The configuration file, which need not exist. */
  readonly file: string;
  readonly settings: readonly SettingStatus[];
}

export interface SettingStatus {
  readonly key: string;
  /** As text; empty when it is left to the daemon. */
  readonly value: string;
  readonly takesEffect: TakesEffect;
}

/** When a changed value is in force: with the next reload, or with the next start. */
export type TakesEffect = "reload" | "restart";

export interface ReloadReply {
  /** Keys whose new value is in force now. */
  readonly applied: readonly string[];
  /** Keys whose new value waits for the next start. */
  readonly needRestart: readonly string[];
  readonly policy: PolicyChangeReply;
}
