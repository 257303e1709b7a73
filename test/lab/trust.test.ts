/** Consent and its end, seen with tcpdump on both interfaces. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AT_ONCE_MS, connectOutcome } from "../helpers/connect-error.ts";
import { InnerCapture } from "../helpers/inner-capture.ts";
import { Lab, waitUntil } from "../helpers/lab.ts";

let lab: Lab;

beforeEach(async () => {
  lab = await Lab.create("trust", { hosts: ["a", "b"] });
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
});

afterEach(() => lab?.close());

const ping = (from: string, to: string, count = 1) =>
  lab.exec(from, "ping", ["-6", "-c", String(count), "-i", "0.1", "-W", "1", lab.overlay(to)]);

describe("consent", () => {
  it("is needed of both before any packet passes, and the refusal says why", async () => {
    const onB = await InnerCapture.start(lab, "b");
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
    await lab.pilot("a", "trust", "ask", String(lab.node("b").node), "--reason", "lab");
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
    expect((await ping("b", "a")).stdout).toContain("Administratively prohibited");
    const { told: answer, tookMs } = await connectOutcome(lab, "a", lab.overlay("b"), 80);
    expect(answer).toBe("EACCES");
    expect(tookMs).toBeLessThan(AT_ONCE_MS);
    const pending = await lab.ask("b", "trust/pending", {});
    expect(pending.requests).toMatchObject([{ node: lab.node("a").node, hostname: "a", reason: "lab" }]);
    await onB.stop();
    expect(await onB.packets(`src host ${lab.overlay("a")}`)).toEqual([]);

    await lab.pilot("b", "trust", "approve", "a");
    await lab.waitForTrust("a", "b", "mutual");
    expect((await ping("a", "b", 3)).stdout).toContain("3 received");
  });

  it("is refused by deny, and the asker learns it", async () => {
    await lab.pilot("a", "trust", "ask", String(lab.node("b").node));
    await waitUntil("the request", async () => (await lab.ask("b", "trust/pending", {})).requests.length === 1);
    await lab.pilot("b", "trust", "deny", "a");
    await lab.waitForTrust("a", "b", "none");
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
    expect((await lab.tryPilot("b", "trust", "approve", "a")).reply.error.code).toMatch(/nothing_pending|unknown_peer/);
  });

  it("given by one side alone opens nothing, also when the registry is told so", async () => {
    await lab.pilot("a", "trust", "ask", String(lab.node("b").node));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const status = await lab.status("a");
    expect(status.peers[0]).toMatchObject({ trust: "asked", path: "none" });
    expect((await lab.tryPilot("a", "ping", String(lab.node("b").node), "-c", "1")).code).toBe(5);
  });
});

describe("revocation", () => {
  it("stays through kills and restarts of everybody", async () => {
    await lab.trust("a", "b");
    await lab.pilot("b", "trust", "revoke", "a");
    await lab.waitForTrust("a", "b", "revoked-by-peer");
    for (const host of ["a", "b"]) await lab.stopNode(host, "SIGKILL");
    await lab.rendezvous.stop();
    await lab.startRendezvous();
    for (const host of ["a", "b"]) await lab.startNode(host);
    const onB = await InnerCapture.start(lab, "b");
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(await lab.trustOf("b", "a")).toBe("revoked");
    expect(await lab.trustOf("a", "b")).toBe("revoked-by-peer");
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
    expect((await ping("b", "a")).stdout).toContain("Administratively prohibited");
    await onB.stop();
    expect(await onB.packets(`src host ${lab.overlay("a")}`)).toEqual([]);
  });
});
