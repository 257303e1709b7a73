/** The status page in a real browser, beside real daemons. With PAGE_SCREENSHOTS=FOLDER it leaves pictures there. */
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { roundTrip } from "../../src/base/readable.ts";
import { type ControlServer, startControlServer } from "../../src/control/server.ts";
import { startBrowser, type Witness, watchPage } from "../helpers/browser.ts";
import { BOB_STATUS, fakeBackend, fakeTrust, STATUS } from "../helpers/control-fixture.ts";
import { LAUNCHER, Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";

const HOSTILE = `<img src="http://192.0.2.1/x" onerror="alert(1)"><script>alert(2)</script>`;
const ORIGIN = "http://127.0.0.1:9587/";

const SEEING = { extraArgs: ["--see-programs"] };

let lab: Lab;
let browser: Browser;
let web: LabProcess;
let addresses: { look: string; change: string };

beforeAll(async () => {
  lab = await Lab.create("web", { hosts: ["a", "b", "c"] });
  await lab.startRendezvous();
  [browser] = await Promise.all([
    startBrowser(lab, "a"),
    lab.startNode("a", SEEING),
    lab.startNode("b"),
    lab.startNode("c"),
  ]);
  await lab.trust("a", "b");
  [web, addresses] = await startWeb(lab.node("a").control);
});

afterAll(async () => {
  await browser?.close();
  await lab?.close();
});

async function startWeb(control: string, listen = "127.0.0.1:9587"): Promise<[LabProcess, typeof addresses]> {
  const process = lab.spawn("a", LAUNCHER, ["--control", control, "--json", "web", "--admin", "--listen", listen]);
  const line = await process.waitForLine(/^\{/, 10_000, "stdout");
  return [process, JSON.parse(line)];
}

interface Opened {
  readonly page: Page;
  readonly witness: Witness;
  readonly context: BrowserContext;
}

async function open(address: string, width = 1280): Promise<Opened> {
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme: "light",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const witness = watchPage(page);
  await page.goto(address);
  return { page, witness, context };
}

/** For a person to look at: wide and narrow, light and dark. */
async function pictures(page: Page, name: string, fullPage = true): Promise<void> {
  const folder = process.env.PAGE_SCREENSHOTS;
  if (folder === undefined) return;
  for (const [width, height] of [
    [360, 740],
    [1280, 900],
  ] as const) {
    for (const colorScheme of ["dark", "light"] as const) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png`, fullPage });
    }
  }
}

const isLive = (page: Page): Promise<void> => page.locator("body[data-daemon=live]").waitFor();
const peerRow = (page: Page, name: string) => page.locator("#peers tbody tr", { hasText: `${name}.pilot` });

/** Nothing was asked of anybody else, and nothing went wrong. */
function expectClean({ requests, complaints }: Witness, origin = ORIGIN): void {
  expect(requests.filter((url) => !url.startsWith(origin))).toEqual([]);
  expect(complaints).toEqual([]);
}

describe("the status page", () => {
  it("shows this node, its peer and how the peer is reached, and a ping moves the curve", async () => {
    const { page, witness, context } = await open(addresses.look);
    await isLive(page);
    expect(page.url()).toBe(ORIGIN); // the token is no longer in the address
    await page.reload(); // and the tab still has it
    await isLive(page);
    expect(await page.locator("#node").textContent()).toContain(lab.overlay("a"));
    const row = peerRow(page, "b");
    for (const text of [lab.overlay("b"), "mutual", "direct", "pilot-tun", "10.77.0.11"]) {
      await row.getByText(text).first().waitFor();
    }
    const curve = row.locator("svg.curve");
    const before = await curve.getAttribute("aria-label");
    await lab.pilot("a", "ping", "b", "-c", "2");
    await waitUntil("the curve to move", async () => (await curve.getAttribute("aria-label")) !== before);
    await waitUntil("the round trip of the daemon", async () => {
      const { peers } = await lab.peers("a");
      return (await row.locator(".trip").textContent()) === roundTrip(peers[0].rttMs);
    });
    expect(await curve.locator("polyline").count()).toBeGreaterThan(0);
    expectClean(witness);
    await context.close();
  });

  it("shows what passes, how fast, and a refusal with its reason", async () => {
    const { page, witness, context } = await open(addresses.look);
    const server = lab.spawn("b", "python3", ["-m", "http.server", "--bind", "::", "8080"]);
    await server.waitForLine(/Serving/);
    const hold = lab.spawn("a", "nc", ["-6", lab.overlay("b"), "8080"]);
    await page.locator("#flows tbody tr", { hasText: /b\.pilot:8080.*nc \(\d+\)/s }).waitFor();
    const busy = lab.spawn("a", "ping", ["-6", "-q", "-i", "0.05", "-s", "1000", lab.overlay("b")]);
    await waitUntil("the rate", async () => {
      const text = await peerRow(page, "b").textContent();
      return /[1-9][\d.]* KiB\/s.*[1-9][\d.]* KiB\/s/s.test(text ?? "");
    });
    await busy.stop();
    await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "1", lab.overlay("c")]);
    const denial = page.locator("#denials tbody tr", { hasText: "icmp" }).first();
    await denial.waitFor();
    expect(await denial.textContent()).toMatch(/not-trusted.*do not both consent/);
    await page.locator("#events li", { hasText: "flow-open" }).first().waitFor();
    await pictures(page, "live");
    await hold.stop();
    await server.stop();
    expectClean(witness);
    await context.close();
  });

  it("lets the second address approve by a click, after which trust is mutual", async () => {
    await lab.pilot("c", "trust", "ask", String(lab.node("a").node), "--reason", HOSTILE, "--ports", "tcp/443");
    const looking = await open(addresses.look);
    const hint = looking.page.locator("#requests-hint");
    await hint.waitFor();
    expect(await looking.page.getByRole("button", { name: /approve/i }).count()).toBe(0);
    await looking.context.close();

    const { page, witness, context } = await open(addresses.change);
    await page.getByRole("button", { name: "Approve… c.pilot" }).click();
    const dialog = page.locator("dialog[open]");
    expect(await dialog.textContent()).toContain(HOSTILE);
    expect(await dialog.textContent()).toMatch(/tcp\/443.*SHA256:/s);
    await pictures(page, "question");
    await dialog.getByRole("button", { name: "Approve" }).click();
    await page.locator("#requests").waitFor({ state: "hidden" });
    await lab.waitForTrust("a", "c", "mutual");
    await lab.waitForTrust("c", "a", "mutual");
    const { entries } = await lab.pilot("a", "trust", "ls");
    const { lease } = entries.find((entry: Reply) => entry.node === lab.node("c").node);
    expect(lease.inward).toEqual(["tcp/443"]);
    await peerRow(page, "c").getByText("mutual").waitFor();
    expectClean(witness);
    await context.close();
  });

  it("says when the daemon has gone, when its own server has gone, and comes back by itself", async () => {
    const { page, context } = await open(addresses.look);
    await isLive(page);
    await lab.stopNode("a");
    await page.locator("body[data-daemon=down]").waitFor();
    expect(await page.locator("#connection").textContent()).toBe("Daemon not running");
    expect(await page.locator("#failure").textContent()).toContain("pilot-tun up");
    await pictures(page, "down");
    await lab.startNode("a", SEEING);
    await isLive(page);
    expect(await page.locator("#failure").isHidden()).toBe(true);

    web.kill("SIGSTOP");
    await web.stop(100);
    await page.locator("#failure", { hasText: "does not answer" }).waitFor();
    [web, addresses] = await startWeb(lab.node("a").control);
    await page.locator("#failure", { hasText: "token_wrong" }).waitFor(); // each start has its own
    await page.goto(addresses.look);
    await isLive(page);
    await context.close();
  });
});

describe("the status page, shown what is hostile or much,", () => {
  const request = {
    ...{
      node: 9,
      pilot: "0:0000.0000.0009",
      address: "fd50:494c:4f54::9",
      hostname: HOSTILE,
      fingerprint: "SHA256:abc",
    },
    ...{ reason: `\u202e${HOSTILE}`, ports: null, forS: null, maxBytes: null, askedAgoS: 3 },
  };
  const crowd = Array.from({ length: 40 }, (_, index) => ({
    ...BOB_STATUS,
    ...{ node: 100 + index, hostname: index === 0 ? HOSTILE : `${"peer-with-a-long-name-".repeat(2)}${index}` },
    note: HOSTILE,
  }));
  const backend = fakeBackend({
    status: async () => ({
      ...STATUS,
      ...{ hostname: HOSTILE, peers: crowd, pending: 1 },
      problems: [{ code: "dns_not_wired", message: HOSTILE, hint: HOSTILE }],
    }),
    trust: fakeTrust({ pending: async () => ({ requests: [request] }) }),
    events: {
      next: async () => ({
        ...{ run: "a", next: 1, missed: 0 },
        events: ["denial", "trust"].map((event) => ({
          ...{ at: "2030-12-31T18:00:00.000Z", event },
          facts: { peer: { name: HOSTILE }, reason: HOSTILE, from: HOSTILE, to: HOSTILE, protocol: HOSTILE },
        })),
      }),
    },
  });

  const origin = "http://127.0.0.1:9588/";
  let control: ControlServer;
  let address: string;

  beforeAll(async () => {
    control = await startControlServer(`${lab.folder}/crowd.sock`, backend);
    address = (await startWeb(control.path, "127.0.0.1:9588"))[1].change;
  });

  afterAll(() => control?.close());

  it("does no harm: markup stays text, nothing is loaded, nothing runs", async () => {
    const { page, witness, context } = await open(address);
    await isLive(page);
    await page.locator("#peers strong", { hasText: HOSTILE }).waitFor();
    await page.locator("#denials", { hasText: HOSTILE }).waitFor();
    expect(await page.locator("main img, main script, dialog img, dialog script").count()).toBe(0);
    expect(await page.locator("#requests blockquote").textContent()).toBe(`?${HOSTILE}`);
    expectClean(witness, origin);
    await context.close();
  });

  it("can be used by keyboard alone: a question opens, Escape leaves it, and nothing was answered", async () => {
    const { page, witness, context } = await open(address);
    await isLive(page);
    await page.locator("#requests-list button").first().waitFor();
    await pictures(page, "crowd", false);
    const focused = (): Promise<unknown> => page.evaluate("document.activeElement.textContent");
    for (let presses = 0; presses < 10 && (await focused()) !== "Approve…"; presses++) await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.locator("dialog[open]").waitFor();
    expect(await focused()).toBe("Cancel"); // what Enter does by mistake does no harm
    await page.keyboard.press("Escape");
    await page.locator("dialog[open]").waitFor({ state: "detached" });
    expect(await focused()).toBe("Approve…");
    expectClean(witness, origin);
    await context.close();
  });

  it.each([360, 1280])("fits a screen %i pixels wide, also its question, in light and in dark", async (width) => {
    const { page, witness, context } = await open(address, width);
    await isLive(page);
    expect(await overflowOf(page, "document.documentElement")).toBe(0);
    await page.getByRole("button", { name: "Deny" }).click();
    await page.locator("dialog[open]").waitFor();
    expect(await overflowOf(page, "document.querySelector('dialog')")).toBe(0);
    const ground = (): Promise<unknown> => page.evaluate("getComputedStyle(document.body).backgroundColor");
    const light = await ground();
    await page.emulateMedia({ colorScheme: "dark" });
    expect(await ground()).not.toBe(light);
    expectClean(witness, origin);
    await context.close();
  });
});

async function overflowOf(page: Page, element: string): Promise<unknown> {
  return await page.evaluate(`${element}.scrollWidth - ${element}.clientWidth`);
}
