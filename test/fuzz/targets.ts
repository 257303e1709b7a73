/** What is fuzzed: one entry per target, its module under `targets/` and its corpus under `corpus/`, both by its name. */
export interface FuzzTarget {
  readonly name: string;
  /** What it looks at, for the list. */
  readonly about: string;
  /** Longer inputs are not tried. */
  readonly maxBytes: number;
}

export const FUZZ_TARGETS: readonly FuzzTarget[] = [
  { name: "frames", about: "tunnel frames and virtual packets", maxBytes: 256 },
  { name: "bridge", about: "messages between pilot-tun nodes, fragments, leases", maxBytes: 512 },
  { name: "packets", about: "inner IPv6 packets, flows, errors, segmentation and coalescing", maxBytes: 1024 },
  { name: "beacon", about: "beacon and node, both sides", maxBytes: 512 },
  { name: "texts", about: "addresses, services, asks, handshakes, endpoints, proxies", maxBytes: 512 },
  { name: "policy", about: "policy text, compiled and compared with its plain meaning", maxBytes: 512 },
  { name: "dns", about: "DNS messages and the zone", maxBytes: 768 },
  { name: "registry", about: "registry frames in JSON and binary, and a client's replies", maxBytes: 1024 },
  { name: "control", about: "requests to the local API", maxBytes: 512 },
  { name: "records", about: "trust file, node.json, audit log, configuration", maxBytes: 1024 },
  { name: "streams", about: "Pilot's reliable stream and its selective acknowledgements", maxBytes: 512 },
  { name: "engine", about: "a whole node: datagrams, sealed packets, replies, programs", maxBytes: 1024 },
];

export type Fuzz = (data: Uint8Array) => void;

export async function loadFuzz(name: string): Promise<Fuzz> {
  const module = (await import(`./targets/${name}.ts`)) as { fuzz: Fuzz };
  return module.fuzz;
}
