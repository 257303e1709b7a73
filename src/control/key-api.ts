/** The part of the local API that is about the node's own key and its entry at the registry. */

export interface KeyMethods {
  "key/rotate": { request: KeyRequest; reply: KeyRotatedReply };
  /** Until the next start. */
  "key/deregister": { request: KeyRequest; reply: KeyReply };
}

export interface KeyBackend {
  rotate(request: KeyRequest, signal: AbortSignal): Promise<KeyRotatedReply>;
  deregister(request: KeyRequest, signal: AbortSignal): Promise<KeyReply>;
}

export interface KeyRequest {
  /** Also over plain TCP, where everybody on the way could repeat it with a key of his own. */
  readonly insecure?: boolean;
}

export interface KeyReply {
  /** Base64. */
  readonly publicKey: string;
  /** As `trust ls` and `whois` of others show it. */
  readonly fingerprint: string;
  /** Null before the first registration. */
  readonly node: number | null;
  readonly pilot: string | null;
}

export interface KeyRotatedReply extends KeyReply {
  readonly previousFingerprint: string;
  /** Trusted peers, which must accept the new key. */
  readonly peers: readonly { readonly node: number; readonly pilot: string; readonly hostname: string | null }[];
}
