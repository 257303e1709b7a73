/**
 * A control server with a fixed overlay behind it, and a captured process to run the command line in: what the tests
 * of `control/` and `cli/` share.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Environment, StopSignal } from "../../src/cli/context.ts";
import { run } from "../../src/cli/program.ts";
import type {
  ControlBackend,
  LeaseStatus,
  NetcheckReply,
  PeerIdentity,
  PeerStatus,
  StatusReply,
  TraceReply,
} from "../../src/control/api.ts";
import type { AuditReply } from "../../src/control/audit-api.ts";
import type { EventsReply } from "../../src/control/events-api.ts";
import type { KeyBackend } from "../../src/control/key-api.ts";
import type { NetworkBackend } from "../../src/control/network-api.ts";
import type { FlowStatus, PolicyBackend, PolicyChangeReply } from "../../src/control/policy-api.ts";
import type { RunReply } from "../../src/control/run-api.ts";
import { type ControlServer, startControlServer } from "../../src/control/server.ts";
import type { TrustBackend } from "../../src/control/trust-api.ts";
import type { WhyReply } from "../../src/control/why-api.ts";

export const BOB: PeerIdentity = {
  node: 7,
  pilot: "0:0000.0000.0007",
  address: "fd50:494c:4f54::7",
  hostname: "bob",
};

export const NAMELESS: PeerIdentity = {
  node: 9,
  pilot: "0:0000.0000.0009",
  address: "fd50:494c:4f54::9",
  hostname: null,
};

export const BOB_STATUS: PeerStatus = {
  ...BOB,
  trust: "mutual",
  path: "direct",
  endpoint: "198.51.100.7:4000",
  rttMs: 4.12,
  rxBytes: 1_258_291,
  txBytes: 512,
  rxPackets: 1000,
  txPackets: 4,
  session: "noise",
  lastHandshakeAgoS: 75,
  lastReceivedAgoS: 12,
  kind: "pilot-tun",
  mtuBytes: 1360,
  pathMtuBytes: 1500,
  lease: null,
  note: "",
};

export const NAMELESS_STATUS: PeerStatus = {
  ...NAMELESS,
  trust: "asked",
  path: "none",
  endpoint: null,
  rttMs: null,
  rxBytes: 0,
  txBytes: 0,
  rxPackets: 0,
  txPackets: 0,
  session: "none",
  lastHandshakeAgoS: null,
  lastReceivedAgoS: null,
  kind: "unknown",
  mtuBytes: null,
  pathMtuBytes: null,
  lease: null,
  note: "asked 3m ago",
};

export const RUN: RunReply = {
  interface: "pilot0",
  addresses: ["fd50:494c:4f54::5", "fd50:494c:4f54:3::5"],
  prefix: "fd50:494c:4f54::/48",
  mtu: 1360,
  dns: "fd50:494c:4f54:ffff::53",
  ports: { first: 65024, last: 65535 },
};

export const STATUS: StatusReply = {
  interface: "pilot0",
  address: "fd50:494c:4f54::5",
  pilot: "0:0000.0000.0005",
  node: 5,
  hostname: "alice",
  mtu: 1360,
  version: "0.1.0",
  uptimeS: 7500,
  listen: "0.0.0.0:4000",
  publicKey: "AAAA",
  registry: { state: "connected", address: "registry.example:9000", error: null, sinceS: 90 },
  beacon: { state: "ok", address: "registry.example:9001", observed: "198.51.100.23:41113", transport: "udp" },
  dns: { address: "fd50:494c:4f54:ffff::53", resolved: "applied" },
  peers: [BOB_STATUS, NAMELESS_STATUS],
  pending: 1,
  drops: { replayed: 3, "not-trusted": 12 },
  problems: [{ code: "dns_not_wired", message: "systemd-resolved was not told", hint: "start a time service" }],
};

export const NETCHECK: NetcheckReply = {
  udp: { out: true, endpoint: "198.51.100.23:41113" },
  nat: { present: true, mapping: "endpoint-independent", filtering: "address-dependent-or-stricter", hairpin: false },
  mtu: { toBeacon: null },
  registry: { address: "registry.example:9000", reachable: true, latencyMs: 41, error: null },
  beacon: { address: "registry.example:9001", reachable: true, latencyMs: 22.4, error: null },
  fallback: {
    address: "wss://registry.example/v1/compat",
    reachable: false,
    latencyMs: null,
    error: "connect ECONNREFUSED 192.0.2.1:443",
    proxy: "proxy.example:3128",
  },
  transport: "udp",
  clockSkewMs: 300,
};

export const AUDIT: AuditReply = {
  directory: "/var/lib/pilot-tun/audit",
  file: 2,
  seq: 90,
  hash: "ab".repeat(32),
  sealedSeq: 90,
  waiting: 0,
  lost: 0,
  failure: null,
};

export const EVENTS: EventsReply = {
  run: "a",
  next: 2,
  missed: 0,
  events: [
    { at: "2030-12-31T18:00:00.000Z", event: "trust", facts: { peer: { name: "bob" }, from: "asked", to: "mutual" } },
    {
      at: "2030-12-31T18:00:01.000Z",
      event: "path",
      facts: { peer: { name: "bob" }, path: "direct", endpoint: "198.51.100.7:4000" },
    },
  ],
};

export const TRACE: TraceReply = {
  peer: BOB,
  path: "relay",
  endpoint: "203.0.113.1:9001",
  answered: true,
  notDirect: { code: "no-answer", message: "no candidate answers" },
  candidates: [
    {
      endpoint: "198.51.100.7:4000",
      origin: "registry",
      state: "silent",
      tries: 3,
      triedAgoS: 1,
      heardAgoS: null,
      rttMs: null,
    },
  ],
  history: [{ agoS: 12, path: "relay", endpoint: null }],
  observed: "198.51.100.23:41113",
  local: ["192.168.1.2"],
};

/** Answers every method; `replace` some of them. */
export function fakeBackend(replace: Partial<ControlBackend> = {}): ControlBackend {
  return {
    status: async () => STATUS,
    peers: async () => ({ peers: STATUS.peers }),
    addr: async ({ peer }) => (peer === undefined ? { ...SELF, self: true } : { ...BOB, self: false }),
    ping: async ({ count }) => ({
      peer: BOB,
      replies: Array.from({ length: count }, (_, index) => ({ seq: index + 1, rttMs: 4 })),
      sent: count,
      received: count,
      path: "direct",
    }),
    netcheck: async () => NETCHECK,
    trace: async () => TRACE,
    whois: async () => ({ ...BOB, fingerprint: "SHA256:abc", trust: "mutual", lease: LEASE, self: false }),
    trust: fakeTrust(),
    why: { explain: async () => WHY },
    network: fakeNetworks(),
    key: fakeKey(),
    run: { prepare: async () => RUN },
    policy: fakePolicy(),
    audit: { flush: async () => AUDIT },
    events: { next: async () => EVENTS },
    metricsText: async () => ({ text: "pilot_tun_info 1\n" }),
    config: {
      show: async () => ({
        file: "/etc/pilot-tun/config.toml",
        settings: [
          { key: "mtu", value: "1360", takesEffect: "restart" },
          { key: "hostname", value: "", takesEffect: "reload" },
        ],
      }),
      reload: async () => ({
        applied: ["hostname"],
        needRestart: ["mtu"],
        policy: { rules: 3, cut: [], cutFlows: 0, confirmWithinS: null },
      }),
    },
    ...replace,
  };
}

export const LEASE: LeaseStatus = {
  inward: ["tcp/443", "udp/53"],
  outward: [],
  endsInS: 7_140,
  leftBytes: 48_000_000,
  endedBy: null,
};

export function fakeTrust(replace: Partial<TrustBackend> = {}): TrustBackend {
  return {
    ask: async () => ({ peer: BOB, trust: "asked", lease: null, waits: true, delivered: "registry" }),
    pending: async () => ({
      requests: [
        {
          ...BOB,
          reason: "nightly backup",
          ...{ ports: ["tcp/443", "udp/53"], forS: 7_200, maxBytes: 50_000_000 },
          askedAgoS: 20,
          fingerprint: "SHA256:abc",
        },
      ],
    }),
    approve: async () => ({ peer: BOB, trust: "mutual", lease: LEASE }),
    deny: async () => ({ peer: BOB, trust: "none", lease: null }),
    ls: async () => ({
      entries: [
        { ...BOB, trust: "mutual", lease: LEASE, sinceS: 20, epoch: 0, fingerprint: "SHA256:abc" },
        { ...NAMELESS, trust: "revoked", lease: null, sinceS: 4000, epoch: 2, fingerprint: null },
      ],
    }),
    revoke: async () => ({
      peer: BOB,
      epoch: 4,
      cutFlows: 1,
      cut: [FLOW],
      elapsedMs: 14.2,
      peerTold: "acknowledged",
      toldAfterMs: 31,
    }),
    ...replace,
  };
}

const OPS = { network: 1, name: "ops", address: "fd50:494c:4f54:1::5" };

export function fakeKey(replace: Partial<KeyBackend> = {}): KeyBackend {
  const facts = { publicKey: "bmV3", fingerprint: "SHA256:new", node: 5, pilot: "0:0000.0000.0005" };
  return {
    rotate: async () => ({ ...facts, previousFingerprint: "SHA256:old", peers: [BOB] }),
    deregister: async () => facts,
    ...replace,
  };
}

export function fakeNetworks(replace: Partial<NetworkBackend> = {}): NetworkBackend {
  return {
    ls: async () => ({
      networks: [{ ...OPS, joinRule: "invite", members: 3, prefix: "fd50:494c:4f54:1::/64", joined: true }],
    }),
    create: async ({ name }) => ({ ...OPS, name }),
    delete: async () => ({ ...OPS, address: null }),
    join: async () => OPS,
    leave: async () => ({ ...OPS, address: null, registryTold: true }),
    invite: async () => ({ network: 1, name: "ops", peer: BOB }),
    members: async () => ({ network: 1, name: "ops", members: [{ ...BOB, self: false }] }),
    invites: async () => ({ invites: [{ network: 1, name: "ops", inviter: BOB, agoS: 70, expiresInS: 86_400 }] }),
    accept: async () => OPS,
    decline: async () => ({ ...OPS, address: null }),
    ...replace,
  };
}

export const FLOW: FlowStatus = {
  id: "1a-tq",
  peer: BOB,
  protocol: "tcp",
  direction: "out",
  localPort: 51_514,
  remotePort: 443,
  rule: { file: "/etc/pilot-tun/policy", line: 3 },
  ageS: 12,
  idleS: 0,
  txBytes: 2048,
  rxBytes: 512,
  program: { uid: 1000, pid: 4711, name: "curl", unit: "backup.service" },
};

export function fakePolicy(replace: Partial<PolicyBackend> = {}): PolicyBackend {
  const change: PolicyChangeReply = { rules: 2, cut: [FLOW], cutFlows: 1, confirmWithinS: null };
  return {
    check: async () => ({ rules: 2, tests: 1, mistakes: [], failedTests: [], wouldCut: [FLOW], wouldCutFlows: 1 }),
    show: async () => ({
      source: "files",
      file: "/etc/pilot-tun/policy",
      rules: [{ file: "/etc/pilot-tun/policy", line: 3, text: "allow out tcp 443 to bob", endsInS: 7200 }],
      confirmWithinS: null,
      lockdown: null,
    }),
    apply: async ({ confirmMs }) => ({ ...change, confirmWithinS: confirmMs === undefined ? null : confirmMs / 1000 }),
    confirm: async () => ({ ...change, cut: [], cutFlows: 0 }),
    rollback: async () => change,
    reload: async () => change,
    flows: async () => ({ flows: [FLOW], total: 1 }),
    kill: async () => ({ flow: FLOW }),
    lockdown: async ({ on }) => ({
      lockdown: on ? { except: [BOB], sinceS: 0, endsInS: 600 } : null,
      cut: [],
      cutFlows: 0,
    }),
    ...replace,
  };
}

export const WHY: WhyReply = {
  peer: BOB,
  direction: "out",
  verdict: "deny",
  stage: "local-rule",
  side: "local",
  code: "policy_no_match",
  rule: null,
  fix: "Add a line to the policy: allow out tcp 22 to bob",
  stages: [
    { stage: "name", state: "ok", detail: "0:0000.0000.0007" },
    { stage: "address", state: "ok", detail: "by pilot0" },
    { stage: "local-rule", state: "failed", detail: "no rule matches" },
    { stage: "consent", state: "unknown", detail: "" },
  ],
};

const SELF: PeerIdentity = { node: 5, pilot: "0:0000.0000.0005", address: "fd50:494c:4f54::5", hostname: "alice" };

/** A directory of its own that `remove` takes away. */
export function temporaryDirectory(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "pilot-tun-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Runs `use` with the path of a socket that `backend` answers at. */
export async function withServer<T>(backend: ControlBackend, use: (path: string) => Promise<T>): Promise<T> {
  const directory = temporaryDirectory();
  let server: ControlServer | undefined;
  try {
    server = await startControlServer(join(directory.path, "control.sock"), backend);
    return await use(server.path);
  } finally {
    await server?.close();
    directory.remove();
  }
}

/** A process that only records. */
export class CapturedProcess implements Environment {
  out = "";
  err = "";
  stdoutIsTerminal = false;
  stderrIsTerminal = false;
  colourWanted = true;
  variables: Record<string, string | undefined> = {};
  readonly exits: number[] = [];
  /** What is typed when it is asked for; nobody is there when they are used up. */
  secrets: string[] = [];
  /** Programs it became: the file, and its arguments. */
  readonly became: string[][] = [];
  outlivesReader = false;
  readonly #listeners = new Map<StopSignal, Set<() => void>>();

  stdout(text: string): void {
    this.out += text;
  }

  stderr(text: string): void {
    this.err += text;
  }

  onSignal(signal: StopSignal, listener: () => void): () => void {
    const listeners = this.#listeners.get(signal) ?? new Set();
    this.#listeners.set(signal, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  async askSecret(question: string): Promise<string | undefined> {
    this.err += question;
    return this.secrets.shift();
  }

  become(file: string, args: readonly string[]): void {
    this.became.push([file, ...args]);
  }

  exit(code: number): void {
    this.exits.push(code);
  }

  outliveReader(): void {
    this.outlivesReader = true;
  }

  /** Delivers a signal; returns how many listened. */
  signal(signal: StopSignal): number {
    const listeners = [...(this.#listeners.get(signal) ?? [])];
    for (const listener of listeners) listener();
    return listeners.length;
  }
}

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** One command line against one backend. */
export function runCli(argv: readonly string[], backend: ControlBackend = fakeBackend()): Promise<Ran> {
  return withServer(backend, async (path) => await runAlone([...argv, "--control", path]));
}

/** A command line in this process, with whatever daemon it finds. */
export async function runAlone(argv: readonly string[]): Promise<Ran> {
  const captured = new CapturedProcess();
  const code = await run(argv, captured);
  return { code, out: captured.out, err: captured.err };
}
