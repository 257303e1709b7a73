/** The daemon's metrics: what Prometheus accepts, and where they are served. */
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { parseMetrics } from "../../src/cli/parse-options.ts";
import { formatDaemonMetrics, Metrics } from "../../src/daemon/metrics.ts";
import { fakeBackend } from "../helpers/control-fixture.ts";

const status = await fakeBackend().status({}, AbortSignal.timeout(1000));
const ENGINE = { sessions: 3, agreements: 5, flows: 7, staged: 2, allowed: 11, denied: 5 };
const folder = mkdtempSync(join(tmpdir(), "metrics-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const text = formatDaemonMetrics({
  ...{
    status,
    engine: ENGINE,
    nameQueries: 4,
    isPreferred: true,
    audit: { waiting: 2, lost: 9 },
    memory: { rss: 1, heapUsed: 2 },
  },
  loop: { percentile: (p) => p * 1e6, max: 2e8 },
});

describe("metrics", () => {
  it("are lines that Prometheus accepts, each announced once with help and type", () => {
    const names = new Set<string>();
    for (const line of text.trimEnd().split("\n")) {
      const heading = /^# (HELP|TYPE) (pilot_tun_[a-z_]+) (.+)$/.exec(line);
      if (heading !== null) {
        expect([line, names.has(`${heading[1]} ${heading[2]}`)]).toEqual([line, false]);
        names.add(`${heading[1]} ${heading[2]}`);
        continue;
      }
      const sample = /^(pilot_tun_[a-z_]+)(?:\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? -?[0-9.e+-]+$/.exec(line);
      expect([line, sample !== null]).toEqual([line, true]);
      expect(names).toContain(`TYPE ${sample![1]}`);
      if (sample![1]!.endsWith("_total")) expect(text).toContain(`# TYPE ${sample![1]} counter`);
    }
  });

  it("say per peer what moved, how and how fast, and in sum what was judged and dropped", () => {
    expect(text).toContain('pilot_tun_peer_received_bytes_total{node="7",peer="bob"} 1258291\n');
    expect(text).toContain('pilot_tun_peer_rtt_seconds{node="7",peer="bob"} 0.00412\n');
    expect(text).toContain('pilot_tun_peer_path{node="7",peer="bob",path="direct"} 1\n');
    expect(text).toContain('pilot_tun_policy_verdicts_total{verdict="deny"} 5\n');
    expect(text).toContain("pilot_tun_audit_lost_events_total 9\n");
    expect(text).toContain('pilot_tun_event_loop_delay_seconds{quantile="1"} 0.2\n');
    for (const [reason, count] of Object.entries(status.drops)) {
      expect(text).toContain(`pilot_tun_dropped_packets_total{reason="${reason}"} ${count}\n`);
    }
  });

  it("are served on a unix socket that only this user and group may open, and nothing else is", async () => {
    const path = join(folder, "metrics.sock");
    const parts = { status: () => status, counters: () => ENGINE, isPreferred: () => false, nameQueries: () => 0 };
    for (const round of [1, 2]) {
      const metrics = new Metrics(parts);
      await metrics.start({ kind: "unix", path }); // the second time over the first one's socket
      expect(statSync(path).mode & 0o777).toBe(0o660);
      expect(await get(path, "/metrics")).toMatchObject({
        code: 200,
        body: expect.stringContaining("pilot_tun_info{"),
      });
      expect((await get(path, "/other")).code).toBe(404);
      if (round === 2) metrics.close();
    }
  });

  it("have a dashboard that asks for nothing they do not have", () => {
    const dashboard = readFileSync(new URL("../../docs/grafana-dashboard.json", import.meta.url), "utf8");
    JSON.parse(dashboard);
    const used = new Set([...dashboard.matchAll(/pilot_tun_[a-z_]+/g)].map(([name]) => name));
    expect(used.size).toBeGreaterThan(10);
    for (const name of used) expect(text).toContain(`# TYPE ${name} `);
  });

  it("cannot be asked to leave this host", () => {
    for (const address of [
      "0.0.0.0:9586",
      "192.0.2.1:9586",
      "[2001:db8::1]:9586",
      "unix:relative",
      "9586",
      "localhost:1",
    ]) {
      expect([address, "problem" in parseMetrics("--metrics", address)]).toEqual([address, true]);
    }
    expect(parseMetrics("--metrics", "[::1]:9586")).toEqual({ value: { kind: "tcp", host: "::1", port: 9586 } });
  });

  it("that cannot be served stop the start with a code", async () => {
    const metrics = new Metrics({
      status: () => status,
      counters: () => ENGINE,
      isPreferred: () => false,
      nameQueries: () => 0,
    });
    const nowhere = metrics.start({ kind: "unix", path: join(folder, "no/such/folder") });
    await expect(nowhere).rejects.toMatchObject({ code: "metrics_unavailable" });
    metrics.close();
  });
});

function get(socketPath: string, path: string): Promise<{ code: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path, agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (piece) => (body += piece));
      response.on("end", () => resolve({ code: response.statusCode, body }));
    });
    call.once("error", reject).end();
  });
}
