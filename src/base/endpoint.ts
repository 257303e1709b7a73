/**
 * Where a datagram goes on the underlay. Hot paths use endpoint slots; this is the form for everything else.
 */
export interface Endpoint {
  /** Textual IPv4 or IPv6 address, in canonical form (an IPv4-mapped IPv6 address is written as IPv4). */
  readonly address: string;
  /** 1 to 65535. */
  readonly port: number;
}

/** An address of this machine on the underlay, and the length of the prefix that it shares with its neighbours. */
export interface LocalAddress {
  readonly address: string;
  readonly prefixLength: number;
}

export function sameEndpoint(a: Endpoint | undefined, b: Endpoint | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.port === b.port && a.address === b.address;
}

/** Inverse of `formatEndpoint`, for text that came from it; foreign text needs `parseEndpoint`. */
export function splitEndpoint(text: string): Endpoint {
  const colon = text.lastIndexOf(":");
  const address = text.startsWith("[") ? text.slice(1, colon - 1) : text.slice(0, colon);
  return { address, port: Number(text.slice(colon + 1)) };
}

/** `192.0.2.1:4000` or `[2001:db8::1]:4000`. */
export function formatEndpoint(endpoint: Endpoint): string {
  return endpoint.address.includes(":")
    ? `[${endpoint.address}]:${endpoint.port}`
    : `${endpoint.address}:${endpoint.port}`;
}
