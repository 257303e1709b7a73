/**
 * What programs are told when a packet of theirs goes no further, by the words of ping, curl and nc and by the errors of
 * their sockets; and what nobody else is told. tcpdump on both interfaces is the witness.
 */
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AT_ONCE_MS, connectError, connectOutcome } from "../helpers/connect-error.ts";
import { InnerCapture } from "../helpers/inner-capture.ts";
import { Lab } from "../helpers/lab.ts";

let lab: Lab;
/** Peers of a: b is trusted, c a stranger, d trusted and gone. */
let policy: string;

const ping = async (from: string, address: string, ...more: readonly string[]) =>
  (await lab.exec(from, "ping", ["-6", "-c", "1", "-W", "4", ...more, address])).stdout;
const curl = async (address: string, port: number) => {
  const words = ["-gsS", "-m", "8", `http://[${address}]:${port}/`];
  const { code, stderr } = await lab.exec("a", "curl", words);
  return { code, stderr };
};
const nc = async (address: string, port: number) =>
  (await lab.exec("a", "nc", ["-6", "-v", "-w", "5", address, String(port)])).stderr;
/** What a connected UDP socket hears of a datagram. */
const udpError = async (address: string, port: number, from = "::") =>
  (await lab.exec("a", "python3", ["-c", UDP, address, String(port), from])).stdout.trim();
/** So many errors of this code about a packet to this address, by the last word of the address that they quote. */
const told = async (capture: InnerCapture, code: number, to: string) => {
  const node = Number.parseInt(to.split(":").at(-1)!, 16);
  return (await capture.packets(`icmp6 and ip6[40] == 1 and ip6[41] == ${code} and ip6[84:4] == ${node}`)).length;
};

beforeAll(async () => {
  lab = await Lab.create("refusals", { hosts: ["a", "b", "c", "d"] });
  policy = `${lab.folder}/policy`;
  writeFileSync(policy, "deny out any to b\n", { mode: 0o600 });
  await lab.startRendezvous();
  await lab.startNode("a", { extraArgs: ["--policy", policy] });
  for (const host of ["b", "c", "d"]) await lab.startNode(host);
  await lab.trust("a", "b");
  await lab.trust("a", "d");
  await lab.stopNode("d");
  // Anew, so that there is no session with d that could be taken for alive.
  await lab.stopNode("a");
  await lab.startNode("a", { extraArgs: ["--policy", policy] });
});

afterAll(() => lab?.close());

const setPolicy = async (text: string) => {
  writeFileSync(policy, text, { mode: 0o600 });
  await lab.pilot("a", "policy", "reload");
};

describe("a program whose packet goes no further", () => {
  it("learns which kind of no it is: policy, nobody there, no answer, a closed port, its own address", async () => {
    await lab.exec("a", "ip", ["-6", "addr", "add", "fd99::5/128", "dev", "lo", "nodad"]);
    const onA = await InnerCapture.start(lab, "a");
    const nobody = "fd50:494c:4f54::4242";
    const noNetwork = "fd50:494c:4f54:77::1";
    const [b, c, d] = ["b", "c", "d"].map((host) => lab.overlay(host)) as [string, string, string];

    // 1/1: a rule, or no consent.
    for (const address of [b, c]) {
      expect(await connectError(lab, "a", address, 80)).toBe("EACCES");
      expect(await udpError(address, 53)).toBe("EACCES");
      expect(await ping("a", address)).toContain("Administratively prohibited");
      expect(await nc(address, 80)).toContain("Permission denied");
      const refused = await curl(address, 80);
      expect(refused.code).toBe(7);
      expect(refused.stderr).toMatch(/Permission denied|Couldn't connect|Could not connect/);
    }

    // 1/0: no such node, no such network.
    for (const address of [nobody, noNetwork]) {
      expect(await connectError(lab, "a", address, 80)).toBe("ENETUNREACH");
      expect(await ping("a", address)).toContain("No route");
    }

    await setPolicy("allow out any to trusted\n");
    // 1/3: a peer that is trusted and does not answer.
    expect(await connectError(lab, "a", d, 80)).toBe("EHOSTUNREACH");
    expect(await ping("a", d)).toContain("Address unreachable");
    expect(await nc(d, 80)).toContain("No route to host");

    // RST, and 1/4 of the far kernel: nobody listens there.
    expect(await connectError(lab, "a", b, 9)).toBe("ECONNREFUSED");
    expect(await udpError(b, 9)).toBe("ECONNREFUSED");
    expect(await nc(b, 9)).toContain("Connection refused");

    // 1/5: an address of this host, but not one of the overlay's.
    expect(await udpError(b, 9, "fd99::5")).toBe("EACCES");
    expect(await ping("a", b, "-I", "fd99::5")).toMatch(/code 5|policy/);

    await onA.stop();
    expect(await told(onA, 1, b)).toBeGreaterThanOrEqual(5);
    expect(await told(onA, 1, c)).toBeGreaterThanOrEqual(5);
    for (const address of [nobody, noNetwork]) expect(await told(onA, 0, address)).toBeGreaterThanOrEqual(2);
    expect(await told(onA, 3, d)).toBeGreaterThanOrEqual(2);
    expect(await told(onA, 4, b)).toBe(1);
    expect(await told(onA, 5, b)).toBe(2);
    const resets = await onA.packets(`src host ${b} and ip6[6] == 6 and ip6[53] & 4 != 0`);
    expect(resets.length).toBeGreaterThanOrEqual(2);
  });

  it("is told at once, and not more often than the limit allows", async () => {
    await setPolicy("deny out any to b\n");
    const onA = await InnerCapture.start(lab, "a");
    const { stdout } = await lab.exec("a", "python3", ["-c", FLOOD, lab.overlay("b")]);
    const { sent, seconds } = JSON.parse(stdout);
    await onA.stop();
    const errors = await onA.packets("icmp6 and ip6[40] == 1 and ip6[41] == 1");
    expect(sent).toBeGreaterThan(5_000);
    expect(errors.length).toBeGreaterThanOrEqual(200);
    expect(errors.length).toBeLessThanOrEqual(250 + 500 * (seconds + 1)); // the bucket's burst, and what ran in
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const { told: answer, tookMs } = await connectOutcome(lab, "a", lab.overlay("b"), 80);
    expect(answer).toBe("EACCES");
    expect(tookMs).toBeLessThan(AT_ONCE_MS);
  });
});

describe("silence", () => {
  it("is all that strangers get, whatever they send, and nothing of it reaches the interface", async () => {
    await setPolicy("allow in any from trusted\nallow out any to trusted\n");
    const onInterface = await InnerCapture.start(lab, "a");
    const onWire = await InnerCapture.start(lab, "a", "eth0");
    // c consents to a, so its daemon does what it can to reach it; a has not been asked about c.
    await lab.pilot("c", "trust", "ask", String(lab.node("a").node));
    const tunnelPort = (await lab.status("a")).listen.split(":").at(-1);
    const target = lab.network.addressOf("a");
    await lab.exec("c", "python3", ["-c", STRANGER, target, tunnelPort, String(lab.node("c").node)]);
    await ping("c", lab.overlay("a"));
    await connectError(lab, "c", lab.overlay("a"), 22);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await onWire.stop();
    await onInterface.stop();
    const stranger = lab.network.addressOf("c");
    expect((await onWire.packets(`src host ${stranger} and udp`)).length).toBeGreaterThanOrEqual(360); // they did come
    expect(await onWire.packets(`dst host ${stranger} and not arp`)).toEqual([]);
    expect(await onInterface.packets(`host ${lab.overlay("c")}`)).toEqual([]);
  });

  it("is all that a trusted peer gets where a rule says no", async () => {
    await setPolicy("allow in tcp 7001 from b\n");
    const [onA, onB] = [await InnerCapture.start(lab, "a"), await InnerCapture.start(lab, "b")];
    const startedAt = performance.now();
    const { stdout } = await lab.exec("b", "timeout", ["3", "python3", "-c", TRY, lab.overlay("a"), "7002"]);
    expect(stdout.trim()).toBe("timed out");
    expect(performance.now() - startedAt).toBeGreaterThan(1_000);
    expect(await ping("b", lab.overlay("a"), "-W", "1")).toContain("0 received");
    await onA.stop();
    await onB.stop();
    expect(await onA.packets("ip6")).toEqual([]);
    expect(await onB.packets(`src host ${lab.overlay("a")}`)).toEqual([]);
    expect((await onB.packets(`dst host ${lab.overlay("a")}`)).length).toBeGreaterThanOrEqual(2);
  });
});

const UDP = `
import errno, socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(4); s.bind((sys.argv[3], 0))
s.connect((sys.argv[1], int(sys.argv[2])))
try: s.send(b"x"); s.recv(1); print("answered")
except TimeoutError: print("ETIMEDOUT")
except OSError as error: print(errno.errorcode.get(error.errno, error))
`;
/** As many datagrams as go in two seconds; errors of earlier ones do not stop it. */
const FLOOD = `
import json, socket, sys, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.setblocking(False)
start = time.time(); sent = 0
while time.time() - start < 2:
    try: s.sendto(b"x", (sys.argv[1], 1 + sent % 60000)); sent += 1
    except OSError: pass
print(json.dumps({"sent": sent, "seconds": time.time() - start}))
`;
/** Frames of every kind with nonsense in them, in c's own name, and plain noise. */
const STRANGER = `
import os, socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
node = int(sys.argv[3]).to_bytes(4, "big")
for magic in (b"PILT", b"PILS", b"PILK", b"PILA", b"PILP", b"\\x05", b"\\x06", b"\\x09", b"GET "):
    for size in range(0, 1200, 30):
        s.sendto(magic + node + os.urandom(size), (sys.argv[1], int(sys.argv[2]))); time.sleep(0.001)
`;
const TRY = `
import socket, sys
try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.5); print("connected")
except TimeoutError: print("timed out")
except OSError as error: print(error)
`;
