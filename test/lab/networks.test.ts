/** Networks, TLS to the registry and key rotation, with real daemons and ordinary programs. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";

let lab: Lab;
let adminToken: string;
let fingerprint: string;

beforeEach(async () => {
  lab = await Lab.create("networks", { hosts: ["a", "b", "c"] });
  adminToken = `${lab.folder}/admin.token`;
  writeFileSync(adminToken, "the operator's own token\n", { mode: 0o600 });
  const rendezvous = await lab.startRendezvous(["--tls-self-signed", "--admin-token-file", adminToken]);
  fingerprint = /[0-9a-f]{64}/.exec(rendezvous.stdout)?.[0] ?? "";
});

afterEach(() => lab?.close());

const inNetwork = (host: string, network: number) => `fd50:494c:4f54:${network}::${lab.node(host).node.toString(16)}`;

const addresses = async (host: string) =>
  (await lab.exec(host, "ip", ["-6", "-o", "addr", "show", "dev", "pilot0", "scope", "global"])).stdout;

const ping = async (from: string, address: string) =>
  (await lab.exec(from, "ping", ["-6", "-c", "1", "-W", "1", address])).stdout;

async function pinged(from: string, address: string): Promise<void> {
  await waitUntil(`an answer of ${address}`, async () => (await ping(from, address)).includes("1 received"), 15_000);
}

describe("networks", () => {
  it("give members an address that ping and curl reach, prohibit it to others, and take it back on leaving", async () => {
    for (const host of ["a", "b", "c"]) await lab.startNode(host);
    const made = await lab.pilot("a", "network", "create", "ops", "--admin-token-file", adminToken);
    expect(made).toMatchObject({ network: 1, name: "ops", address: inNetwork("a", 1) });
    expect(await addresses("a")).toContain(inNetwork("a", 1)); // there when the command returns
    expect((await lab.tryPilot("b", "network", "join", "ops")).reply.error.code).toBe("network_refused");
    await lab.pilot("a", "network", "invite", "ops", String(lab.node("b").node));
    expect((await lab.pilot("b", "network", "invites")).invites).toMatchObject([
      { network: 1, name: "ops", inviter: { node: lab.node("a").node } },
    ]);
    expect(await lab.pilot("b", "network", "accept", "ops")).toMatchObject({ address: inNetwork("b", 1) });
    expect(await addresses("b")).toContain(`${inNetwork("b", 1)}/128`);
    const { members } = await lab.pilot("b", "network", "members", "ops");
    expect(members.map((member: Reply) => member.node)).toEqual([lab.node("a").node, lab.node("b").node]);

    // Membership alone opens nothing; one side's asking does, because the other's operator joined.
    expect(await ping("a", inNetwork("b", 1))).toContain("prohibited");
    await lab.pilot("a", "trust", "ask", String(lab.node("b").node));
    await lab.waitForTrust("a", "b", "mutual", 10_000);
    expect((await lab.ask("b", "trust/pending", {})).requests).toEqual([]);
    await pinged("a", inNetwork("b", 1));
    await pinged("b", inNetwork("a", 1));
    const server = ["-m", "http.server", "--bind", inNetwork("b", 1), "8080", "--directory", lab.folder];
    const web = lab.spawn("b", "python3", ["-u", ...server]);
    await web.waitForLine(/Serving HTTP/);
    const page = await lab.exec("a", "curl", ["-sS", "-g", `http://[${inNetwork("b", 1)}]:8080/admin.token`]);
    expect(page.stdout).toBe(readFileSync(adminToken, "utf8"));

    // c trusts b in person, and is no member: the network's addresses are not for it, its own are.
    await lab.trust("c", "b");
    await pinged("c", lab.overlay("b"));
    expect(await ping("c", inNetwork("b", 1))).toContain("Administratively prohibited");
    expect(await ping("c", "fd50:494c:4f54:99::1")).toMatch(/No route|unreachable/i);

    expect(await lab.pilot("b", "network", "leave", "ops")).toMatchObject({ address: null, registryTold: true });
    expect(await addresses("b")).not.toContain(inNetwork("b", 1));
    expect(await lab.trustOf("b", "a")).toBe("none"); // that consent came with the network
    expect(await lab.trustOf("b", "c")).toBe("mutual");
    expect(await ping("a", inNetwork("b", 1))).toContain("0 received");
    await pinged("c", lab.overlay("b"));
  });

  it("keep their addresses over a restart without a registry", async () => {
    await lab.startNode("a");
    await lab.pilot("a", "network", "create", "ops", "--admin-token-file", adminToken);
    await lab.stopNode("a", "SIGKILL");
    await lab.rendezvous.stop();
    await lab.startNode("a");
    expect(await addresses("a")).toContain(inNetwork("a", 1));
    expect((await lab.pilot("a", "network", "ls")).networks).toMatchObject([
      { network: 1, address: inNetwork("a", 1), joined: true },
    ]);
    const left = await lab.pilot("a", "network", "leave", "1");
    expect(left.registryTold).toBe(false);
    expect(await addresses("a")).not.toContain(inNetwork("a", 1));
  });
});

describe("the tags of a node", () => {
  it("are what rules of its peers go by, and change while it runs", async () => {
    const policy = `${lab.folder}/policy`;
    writeFileSync(policy, "allow out icmp to tag:web\nallow in icmp from trusted\n");
    const config = `${lab.folder}/b.toml`;
    writeFileSync(config, 'tags = "db"\n');
    await lab.startNode("a", { extraArgs: ["--policy", policy] });
    await lab.startNode("b", { extraArgs: ["--config", config] });
    await lab.trust("a", "b");
    expect(await ping("a", lab.overlay("b"))).toContain("prohibited");
    writeFileSync(config, 'tags = "db,web"\n');
    await lab.pilot("b", "reload");
    await lab.stopNode("a");
    await lab.startNode("a", { extraArgs: ["--policy", policy] });
    await pinged("a", lab.overlay("b"));
  });
});

describe("TLS to the registry", () => {
  it("goes by the pinned fingerprint or the system's authorities, and others get no registration and a reason", async () => {
    expect(fingerprint).toMatch(/^[0-9a-f]{64}$/);
    await lab.startNode("a", { extraArgs: ["--registry-fingerprint", fingerprint] });
    const status = async (host: string) => (await lab.status(host)).registry;
    await waitUntil("a registered node", async () => (await status("a")).state === "connected");
    await lab.stopNode("a");
    const wrong = fingerprint.replace(/^./, (digit) => (digit === "0" ? "1" : "0"));
    await lab.startNode("a", { extraArgs: ["--registry-fingerprint", wrong] });
    await waitUntil("the reason", async () => /fingerprint/.test((await status("a")).error ?? ""));
    expect((await status("a")).error).toContain(fingerprint);
    await lab.stopNode("a");
    await lab.startNode("a", { extraArgs: ["--registry-tls"] });
    await waitUntil("the reason", async () => /self-signed|verify/i.test((await status("a")).error ?? ""));
    // This system's authorities, of which the lab makes one.
    await lab.stopNode("a");
    const env = { SSL_CERT_FILE: `${lab.folder}/rendezvous/tls-cert.pem` };
    await lab.startNode("a", { extraArgs: ["--registry-tls"], env });
    await waitUntil("a registered node", async () => (await status("a")).state === "connected");
  });

  it("can be the only way in", async () => {
    await lab.rendezvous.stop();
    await lab.startRendezvous(["--tls-self-signed", "--registry-tls-only"]);
    const plain = lab.spawnNode("a");
    await plain.waitForLine(/waiting for the registry/);
    await plain.stop();
    await lab.startNode("b", { extraArgs: ["--registry-fingerprint", fingerprint] });
  });
});

describe("the key", () => {
  it("is rotated by the running daemon: connections go on, peers see it at once, and a restart keeps the number", async () => {
    const secure = ["--registry-fingerprint", fingerprint];
    await lab.startNode("a", { extraArgs: secure });
    await lab.startNode("b", { extraArgs: secure });
    await lab.trust("a", "b");
    const { node, overlay } = { node: lab.node("b").node, overlay: lab.overlay("b") };
    const before = await lab.pilot("b", "id", "show", "--state", lab.node("b").stateDir);
    const pings = lab.exec("a", "ping", ["-6", "-c", "30", "-i", "0.1", "-W", "2", overlay]);
    const rotated = await lab.pilot("b", "id", "rotate");
    expect(rotated).toMatchObject({ node, previousFingerprint: before.fingerprint, peers: [{ hostname: "a" }] });
    expect((await pings).stdout).toContain("30 received");
    expect((await lab.pilot("b", "id", "show", "--state", lab.node("b").stateDir)).fingerprint).toBe(
      rotated.fingerprint,
    );
    expect((await lab.pilot("b", "whois", overlay)).fingerprint).toBe(rotated.fingerprint);
    const seen = async () => (await lab.status("a")).problems.find((found: Reply) => found.code === "key_changed");
    await waitUntil("a to see the change", async () => (await seen()) !== undefined);
    expect((await seen()).message).toContain(rotated.fingerprint);

    await lab.stopNode("b");
    expect((await lab.startNode("b", { extraArgs: secure })).node).toBe(node);
    expect(await ping("a", overlay)).toContain("0 received"); // a's operator decides
    await lab.pilot("a", "trust", "revoke", String(node));
    await lab.pilot("a", "trust", "ask", String(node));
    await lab.waitForTrust("a", "b", "mutual", 30_000);
    await pinged("a", overlay);

    expect(await lab.pilot("b", "deregister")).toMatchObject({ node, fingerprint: rotated.fingerprint });
    expect((await lab.status("b")).registry.error).toContain("deregistered");
    await pinged("a", overlay); // who knows the way goes on
  });

  it("is not rotated over plain TCP unless the operator insists", async () => {
    await lab.startNode("a");
    const { reply } = await lab.tryPilot("a", "id", "rotate");
    expect(reply.error.code).toBe("insecure_registry");
    expect((await lab.pilot("a", "id", "rotate", "--insecure")).node).toBe(lab.node("a").node);
  });

  it("is rotated over TLS only; peers that pinned the old one decide, and the number stays", async () => {
    const secure = ["--registry-fingerprint", fingerprint];
    await lab.startNode("a", { extraArgs: secure });
    await lab.startNode("b", { extraArgs: secure });
    await lab.trust("a", "b");
    await pinged("a", lab.overlay("b"));
    const state = ["--state", lab.node("b").stateDir];
    const before = await lab.pilot("b", "id", "show", ...state);
    expect(before.node).toBe(lab.node("b").node);

    const rotate = (...more: string[]) =>
      lab.tryPilot("b", "id", "rotate", ...state, "--registry", lab.registry, ...more);
    expect((await rotate(...secure)).reply.error.code).toBe("state_locked");
    await lab.stopNode("b");
    expect((await rotate()).reply.error.code).toBe("insecure_registry");
    const { reply: after } = await rotate(...secure);
    expect(after).toMatchObject({ node: before.node, previousFingerprint: before.fingerprint });
    expect(after.fingerprint).not.toBe(before.fingerprint);
    expect(existsSync(`${lab.node("b").stateDir}/identity-next.json`)).toBe(false);

    const again = await lab.startNode("b", { extraArgs: secure });
    expect(again.node).toBe(before.node);
    const problem = async () => (await lab.status("a")).problems.find((found: Reply) => found.code === "key_changed");
    await waitUntil("a to see the change", async () => (await problem()) !== undefined, 30_000);
    expect((await problem()).message).toContain(after.fingerprint);
    expect(await ping("a", lab.overlay("b"))).toContain("0 received"); // the pin stays until a's operator decides

    await lab.pilot("a", "trust", "revoke", String(before.node));
    await lab.pilot("a", "trust", "ask", String(before.node));
    expect(await problem()).toBeUndefined();
    await lab.waitForTrust("a", "b", "mutual", 30_000);
    await pinged("a", lab.overlay("b"));
  });

  it("survives a rotation that was broken off: the registry's word decides at the next start", async () => {
    const secure = ["--registry-fingerprint", fingerprint];
    await lab.startNode("b", { extraArgs: secure });
    const { stateDir, node } = lab.node("b");
    const access = ["--state", stateDir, "--registry", lab.registry, ...secure];
    await lab.stopNode("b");
    const old = readFileSync(`${stateDir}/identity.json`, "utf8");
    const rotated = await lab.pilot("b", "id", "rotate", ...access);
    // As after a crash between the registry's answer and the change on disk.
    writeFileSync(`${stateDir}/identity-next.json`, readFileSync(`${stateDir}/identity.json`, "utf8"), { mode: 0o600 });
    writeFileSync(`${stateDir}/identity.json`, old, { mode: 0o600 });
    expect((await lab.startNode("b", { extraArgs: secure })).node).toBe(node);
    expect((await lab.pilot("b", "id", "show", "--state", stateDir)).fingerprint).toBe(rotated.fingerprint);
    // As after a crash before the registry was told.
    await lab.stopNode("b");
    writeFileSync(`${stateDir}/identity-next.json`, old, { mode: 0o600 });
    expect((await lab.startNode("b", { extraArgs: secure })).node).toBe(node);
    expect((await lab.pilot("b", "id", "show", "--state", stateDir)).fingerprint).toBe(rotated.fingerprint);
    expect(existsSync(`${stateDir}/identity-next.json`)).toBe(false);

    await lab.stopNode("b");
    expect(await lab.pilot("b", "deregister", ...access)).toMatchObject({ node });
  });
});
