/**
 * `pilot-tun id …` and `pilot-tun deregister`: this node's key, and its entry at the registry. A running daemon does it
 * itself; with --registry it is done here, for a daemon that is stopped.
 */
import { EXIT, type ExitCode, SCHEMA } from "../control/api.ts";
import type { KeyReply, KeyRotatedReply } from "../control/key-api.ts";
import type { RegistryAccess } from "../daemon/identity.ts";
import type { IdentityRestore } from "../daemon/identity-backup.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { bytes, counted, printable, table, UNKNOWN } from "./format.ts";
import { Checked, parseHostPort, parsePath } from "./parse-options.ts";
import { PASSPHRASE_OPTION, passphraseOf } from "./passphrase.ts";
import { declareRegistryOptions, parseRegistrySecurity } from "./registry-options.ts";

export const declareId: Declare = (program, perform) => {
  const id = program.command("id").description("this node's key: show it, rotate it, back it up, restore it");
  id.command("show")
    .description("public key, fingerprint and number of the identity in the state directory")
    .option("--state <DIR>", STATE_HELP, DEFAULT_STATE)
    .addHelpText("after", examples("pilot-tun id show"))
    .action(perform(show));
  declareRegistryOptions(
    id.command("rotate").description("change the key, keep the number; --registry for a daemon that is stopped"),
  )
    .option("--state <DIR>", STATE_HELP, DEFAULT_STATE)
    .option("--insecure", INSECURE_HELP)
    .addHelpText("after", ROTATION_HELP)
    .action(perform(rotate));
  id.command("backup")
    .description("write identity and trust into a file, under a passphrase; the daemon may run")
    .argument("<FILE>", "readable by you alone; what is there is replaced")
    .option("--state <DIR>", STATE_HELP, DEFAULT_STATE)
    .option(...PASSPHRASE_OPTION)
    .addHelpText(
      "after",
      examples(
        "pilot-tun id backup two.backup",
        "pilot-tun id backup two.backup --passphrase-file /etc/pilot-tun/passphrase",
      ),
    )
    .action(perform(backup));
  id.command("restore")
    .description("put a backup's identity and trust in place, while the daemon is stopped")
    .argument("<FILE>", "what id backup wrote")
    .option("--state <DIR>", STATE_HELP, DEFAULT_STATE)
    .option(...PASSPHRASE_OPTION)
    .option("--force", "also over another identity or newer trust; what was there is kept under another name")
    .addHelpText("after", RESTORE_HELP)
    .action(perform(restore));
};

export const declareDeregister: Declare = (program, perform) => {
  declareRegistryOptions(
    program
      .command("deregister")
      .description("take this node out of the registry until the next start; --registry for a daemon that is stopped"),
  )
    .option("--state <DIR>", STATE_HELP, DEFAULT_STATE)
    .option("--insecure", INSECURE_HELP)
    .addHelpText(
      "after",
      examples("pilot-tun deregister", "pilot-tun deregister --registry registry.example:443 --registry-tls"),
    )
    .action(perform(deregister));
};

const DEFAULT_STATE = "/var/lib/pilot-tun";
const STATE_HELP = "identity, trust and caches";
const INSECURE_HELP = "also over plain TCP, where everybody on the way could repeat it with a key of his own";
const ROTATION_HELP = `
Connections go on. What each peer must do then:
  pilot-tun            its operator: trust revoke and trust ask. Until then it shows key_changed with the new
                       fingerprint (pilot-tun status), and refuses to agree on new keys with this node.
  Pilot daemon         nothing; from before April 2026: a restart.
${examples("pilot-tun id rotate", "pilot-tun id rotate --registry registry.example:443 --registry-tls")}`;

const RESTORE_HELP = `
One key, one host: the host that the backup is from must never run with this key again.
${examples("systemctl stop pilot-tun && pilot-tun id restore two.backup && systemctl start pilot-tun")}`;

async function show(context: Context, input: Input): Promise<ExitCode> {
  const checked = new Checked();
  const stateDir = checked.take(parsePath("--state", input.options.state), "");
  checked.end();
  const { showIdentity } = await import("../daemon/identity.ts");
  const facts = showIdentity(stateDir);
  context.answer({ schema: SCHEMA, ...facts }, () => factLines(facts, context));
  return EXIT.ok;
}

async function rotate(context: Context, input: Input): Promise<ExitCode> {
  return input.options.registry === undefined
    ? await rotateRunning(context, input)
    : await rotateStopped(context, input);
}

async function rotateRunning(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("key/rotate", insecureIn(input));
  context.answer(reply, () => [...rotatedLines(reply, context), ...peerLines(reply)]);
  return EXIT.ok;
}

async function rotateStopped(context: Context, input: Input): Promise<ExitCode> {
  const { stateDir, access } = parseAccess(input);
  const { rotateKey } = await import("../daemon/identity.ts");
  const facts = await rotateKey(stateDir, access);
  context.answer({ schema: SCHEMA, ...facts }, () => rotatedLines(facts, context));
  context.advise("peers refuse the new key until their operators run trust revoke and trust ask");
  return EXIT.ok;
}

function rotatedLines(facts: KeyReply & { readonly previousFingerprint: string }, context: Context): string[] {
  return [`rotated: was ${facts.previousFingerprint}`, ...factLines(facts, context)];
}

function peerLines({ pilot, peers }: KeyRotatedReply): string[] {
  if (peers.length === 0) return [];
  const names = peers.map((peer) => (peer.hostname === null ? peer.pilot : printable(peer.hostname))).join(", ");
  return [
    `connections go on; when a key must be agreed on anew, ${counted(peers.length, "peer")} will refuse this one: ${names}`,
    `there: pilot-tun trust revoke ${pilot}, then pilot-tun trust ask ${pilot} (a Pilot daemon needs nothing)`,
  ];
}

async function backup(context: Context, input: Input): Promise<ExitCode> {
  const [stateDir, file] = parsePlaces(input);
  const passphrase = await passphraseOf(context, input.options.passphraseFile, "new");
  const { backupIdentity } = await import("../daemon/identity-backup.ts");
  const facts = await backupIdentity(stateDir, file, passphrase);
  context.answer({ schema: SCHEMA, ...facts }, () => [
    `written: ${facts.file}, ${bytes(facts.bytes)}, opened and checked; it holds ${facts.files.join(", ")}`,
    ...factLines(facts, context),
  ]);
  context.advise("after id rotate make a new one: the registry knows the newer key alone");
  return EXIT.ok;
}

async function restore(context: Context, input: Input): Promise<ExitCode> {
  const [stateDir, file] = parsePlaces(input);
  const passphrase = await passphraseOf(context, input.options.passphraseFile, "known");
  const { restoreIdentity } = await import("../daemon/identity-backup.ts");
  const facts = await restoreIdentity(stateDir, file, passphrase, input.options.force === true);
  context.answer({ schema: SCHEMA, ...facts }, () => restoredLines(facts, context));
  return EXIT.ok;
}

function restoredLines(facts: IdentityRestore, context: Context): string[] {
  const { made, restored, kept, putAside } = facts;
  const bringsTrust = restored.includes("trust.json");
  return [
    `restored, as of ${made}: ${restored.length === 0 ? "nothing was missing" : restored.join(", ")}`,
    ...(kept.length === 0 ? [] : [`left as it is here: ${kept.join(", ")}`]),
    ...(putAside.length === 0 ? [] : ["put aside:", ...putAside.map((path) => `  ${path}`)]),
    ...factLines(facts, context),
    "one key, one host. If the backup is from another host, there: systemctl disable --now pilot-tun, then",
    "shred -u /var/lib/pilot-tun/identity.json. Has somebody else had that host or this file: pilot-tun id rotate, here.",
    ...(bringsTrust ? [`what was revoked after ${made} is trusted again on this side: pilot-tun trust ls`] : []),
  ];
}

function parsePlaces({ args, options }: Input): [stateDir: string, file: string] {
  const checked = new Checked();
  const stateDir = checked.take(parsePath("--state", options.state), "");
  const file = checked.take(parsePath("FILE", args[0]), "");
  checked.end();
  return [stateDir, file];
}

async function deregister(context: Context, input: Input): Promise<ExitCode> {
  const facts =
    input.options.registry === undefined
      ? await context.call("key/deregister", insecureIn(input))
      : { schema: SCHEMA, ...(await deregisterStopped(input)) };
  context.answer(facts, () => [`deregistered ${facts.pilot}; its number and key are kept`]);
  return EXIT.ok;
}

async function deregisterStopped(input: Input): Promise<KeyReply> {
  const { stateDir, access } = parseAccess(input);
  const daemon = await import("../daemon/identity.ts");
  return await daemon.deregister(stateDir, access);
}

function insecureIn(input: Input): { readonly insecure?: true } {
  return input.options.insecure === true ? { insecure: true } : {};
}

function factLines(facts: KeyReply, context: Context): string[] {
  return table(
    [
      ["pilot", facts.pilot ?? UNKNOWN],
      ["node", facts.node === null ? UNKNOWN : String(facts.node)],
      ["key", facts.publicKey],
      ["fingerprint", facts.fingerprint],
    ],
    context.paint,
  );
}

function parseAccess(input: Input): { stateDir: string; access: RegistryAccess } {
  const checked = new Checked();
  const stateDir = checked.take(parsePath("--state", input.options.state), "");
  const registry = checked.take(parseHostPort("--registry", input.options.registry), { host: "", port: 0 });
  const registrySecurity = parseRegistrySecurity(input.options, checked);
  checked.end();
  return { stateDir, access: { registry, registrySecurity, insecure: input.options.insecure === true } };
}
