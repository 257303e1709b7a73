/**
 * `scripts/demo`: what pilot-tun does, in under a minute, with nothing but ordinary programs. Two hosts and a
 * rendezvous in network namespaces of this machine; all of it is gone at the end. A step that does not do what it says
 * ends the demo with an error.
 */
import { existsSync, truncateSync, writeFileSync } from "node:fs";
import { LAUNCHER, Lab } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { print, Transcript } from "./transcript.ts";

const WEB_PORT = "8080";
const UDP_PORT = "7000";

/** Newer systems have the one name only. */
const PING = existsSync("/bin/ping6") ? ["ping6"] : ["ping", "-6"];

let lab: Lab | undefined;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => breakOff(130));

// A reader that has seen enough: `scripts/demo | head`.
process.stdout.on("error", () => breakOff(1));

const startedAt = performance.now();
try {
  lab = await Lab.create("demo", { hosts: ["a", "b"] });
  await demo(lab, new Transcript(lab));
  await cleanUp();
  print(
    "",
    `Done in ${((performance.now() - startedAt) / 1_000).toFixed(0)} s; the namespaces and all in them are gone.`,
  );
} catch (error) {
  await cleanUp();
  print("", `The demo failed: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}

async function demo(lab: Lab, page: Transcript): Promise<void> {
  introduce(lab);
  await startNodes(lab, page);
  const address = await showAddresses(page);
  await refuseBeforeTrust(page, address);
  await makeTrust(page, address);
  const web = await useOrdinaryPrograms(lab, page, address);
  await revokeDuringTransfer(lab, page, address, web);
}

function introduce(lab: Lab): void {
  const [a, b, net] = ["a", "b", "net"].map((host) => lab.network.addressOf(host)) as [string, string, string];
  const underlay = `${a} ──────────── ${net} ──────────── ${b}`;
  print(
    "Two hosts and a rendezvous, each in a network namespace of its own:",
    "",
    "   host a               net               host b",
    "   pilot0 ════════════════════════════════ pilot0     overlay: IPv6, encrypted, with consent of both",
    "      │             rendezvous               │        (registry and beacon)",
    `  ${underlay}   underlay: plain TCP and UDP`,
    "",
    "The word before # is the host that a command runs on. pilot-tun is scripts/pilot-tun, with the options",
    "--control and --state left out where they only keep the two hosts of this one machine apart.",
  );
}

async function startNodes(lab: Lab, page: Transcript): Promise<void> {
  page.title("A rendezvous, and a node on each host");
  const rendezvous = ["rendezvous", "--registry", lab.registry, "--beacon", lab.beacon];
  await page.start("net", ["pilot-tun", ...rendezvous], /ready/, {
    actually: [LAUNCHER, ...rendezvous, "--state", `${lab.folder}/rendezvous`],
  });
  for (const host of ["a", "b"]) {
    const up = ["up", "--registry", lab.registry, "--beacon", lab.beacon, "--hostname", host];
    await page.start(host, ["pilot-tun", ...up], /pilot0/, {
      actually: [LAUNCHER, "--control", page.controlOf(host), ...up, "--state", `${lab.folder}/${host}-state`],
    });
  }
}

/** Overlay address of b. */
async function showAddresses(page: Transcript): Promise<string> {
  page.title("Each node has an address of its own, on an ordinary interface");
  await page.run("a", ["ip", "-6", "-brief", "addr", "show", "pilot0"]);
  await page.pilot("b", ["addr", "--all"]);
  await page.pilot("a", ["addr", "b"], { fails: true, prints: /unknown_peer/ });
  page.note("", "Nodes are private: a stranger cannot even look up b's name. Its operator hands out the address.");
  const { output } = await page.pilot("b", ["addr"]);
  return output.trim();
}

async function refuseBeforeTrust(page: Transcript, address: string): Promise<void> {
  page.title("Before both sides consented nothing passes, and programs are told so at once");
  const ping = await page.run("a", [...PING, "-c", "1", "-W", "5", address], {
    fails: true,
    prints: /prohibited|No route|unreachable/i,
  });
  const curl = await page.run("a", ["curl", "-sS", "-m", "5", `http://[${address}]:${WEB_PORT}/`], { fails: true });
  page.note("", `refused after ${ping.elapsedMs.toFixed(0)} and ${curl.elapsedMs.toFixed(0)} ms: an error, not a hang`);
}

async function makeTrust(page: Transcript, address: string): Promise<void> {
  page.title("One side asks, the other approves");
  await page.pilot("a", ["trust", "ask", address, "--reason", "show me around"]);
  await page.pilotOnce("b", ["trust", "pending"], /show me around/);
  await page.pilot("b", ["trust", "approve", "a"], { prints: /mutual/ });
  await page.pilotOnce("a", ["trust", "ls"], /mutual/);
}

/** The web server of b, which goes on. */
async function useOrdinaryPrograms(lab: Lab, page: Transcript, address: string): Promise<LabProcess> {
  page.title("Ordinary programs, unmodified: ping6, curl, netcat, iperf3");
  await page.run("a", [...PING, "-c", "3", "-i", "0.2", "-W", "5", address], { prints: /3 received/ });

  writeFileSync(`${lab.folder}/hello.txt`, "Hello from b, through pilot0.\n");
  const serve = ["python3", "-m", "http.server", "--bind", "::", WEB_PORT];
  const web = await page.startServer("b", serve, `:${WEB_PORT}`, { cwd: lab.folder });
  await page.run("a", ["curl", "-sS", "-m", "10", `http://[${address}]:${WEB_PORT}/hello.txt`], {
    prints: /Hello from b/,
  });

  const listener = await page.startServer("b", ["nc", "-6", "-u", "-l", UDP_PORT], `:${UDP_PORT}`, { input: "pong\n" });
  await page.run("a", ["nc", "-6", "-u", "-W", "1", "-w", "5", address, UDP_PORT], { input: "ping\n", prints: /pong/ });
  page.note(`(b received: ${await listener.waitForLine(/ping/)})`);
  await listener.stop();

  const server = await page.startServer("b", ["iperf3", "-s"], ":5201");
  await page.run("a", ["iperf3", "-c", address, "-t", "3"], {
    prints: /receiver/,
    show: (lines) => lines.filter((line) => /Interval|sender|receiver/.test(line)).slice(-3),
  });
  await server.stop();
  await page.pilot("a", ["peers"], { prints: /direct/ });
  return web;
}

async function revokeDuringTransfer(lab: Lab, page: Transcript, address: string, web: LabProcess): Promise<void> {
  page.title("Trust is taken back in the middle of a download");
  writeFileSync(`${lab.folder}/endless`, "");
  truncateSync(`${lab.folder}/endless`, 1024 ** 4); // a hole in a file takes no room
  const url = `http://[${address}]:${WEB_PORT}/endless`;
  const download = await page.start("a", ["curl", "-sS", "-o", "/dev/null", url], /./, {
    // What was received so far, so that there is a line to see that it runs.
    actually: ["sh", "-c", `curl -sS -o /dev/null '${url}' & sleep 1; echo '(running)'; wait $!`],
  });
  const { elapsedMs: commandMs } = await page.pilot("b", ["addr", "a"]);
  const revokedAt = performance.now();
  const [here, there] = [noticed(web, /ConnectionReset|BrokenPipe/), noticed(download, /curl: /)];
  await page.pilot("b", ["trust", "revoke", "a"], { prints: /revoked/ });
  const [server, client] = await Promise.all([here, there]);
  page.note(
    "",
    `on b the web server was cut off after ${(server.at - revokedAt).toFixed(0)} ms:  ${server.line}`,
    `on a curl was cut off after       ${(client.at - revokedAt).toFixed(0)} ms:  ${client.line}`,
    `counted from the moment the command was typed; any pilot-tun command takes about ${commandMs.toFixed(0)} ms`,
  );
  await page.pilot("a", ["trust", "ls"], { prints: /revoked/ });
  await page.run("a", [...PING, "-c", "1", "-W", "5", address], { fails: true, prints: /prohibited|unreachable/i });
}

async function noticed(program: LabProcess, sign: RegExp): Promise<{ line: string; at: number }> {
  const line = await program.waitForLine(sign, 15_000, "stderr");
  return { line, at: performance.now() };
}

function breakOff(exitCode: number): void {
  void cleanUp().finally(() => process.exit(exitCode));
}

async function cleanUp(): Promise<void> {
  await lab?.close();
}
