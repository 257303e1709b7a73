/** `pilot-tun id …` and `pilot-tun deregister`: this node's key, and its entry at the registry, while no daemon runs. */
import { EXIT, type ExitCode, SCHEMA } from "../control/api.ts";
import type { IdentityFacts, RegistryAccess } from "../daemon/identity.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { table, UNKNOWN } from "./format.ts";
import { Checked, parseHostPort, parsePath } from "./parse-options.ts";
import { declareRegistryOptions, parseRegistrySecurity } from "./registry-options.ts";

export const declareId: Declare = (program, perform) => {
  const id = program.command("id").description("this node's key: show it, rotate it");
  id.command("show")
    .description("public key, fingerprint and number of the identity in the state directory")
    .option("--state <DIR>", STATE_HELP, DEFAULT_STATE)
    .addHelpText("after", examples("pilot-tun id show"))
    .action(perform(show));
  declareRegistryOptions(
    id.command("rotate").description("change the key, keep the number; the daemon must be stopped"),
  )
    .option("--state <DIR>", STATE_HELP, DEFAULT_STATE)
    .option("--insecure", INSECURE_HELP)
    .addHelpText("after", ROTATION_HELP)
    .action(perform(rotate));
};

export const declareDeregister: Declare = (program, perform) => {
  declareRegistryOptions(
    program.command("deregister").description("take this node out of the registry; the daemon must be stopped"),
  )
    .option("--state <DIR>", STATE_HELP, DEFAULT_STATE)
    .option("--insecure", INSECURE_HELP)
    .addHelpText("after", examples("pilot-tun deregister --registry registry.example:443 --registry-tls"))
    .action(perform(deregister));
};

const DEFAULT_STATE = "/var/lib/pilot-tun";
const STATE_HELP = "identity, trust and caches";
const INSECURE_HELP = "also over plain TCP, where everybody on the way could repeat it with a key of his own";
const ROTATION_HELP = `
Peers pinned the old key and refuse the new one until their operators decide: pilot-tun status there shows
key_changed with the new fingerprint; trust revoke and trust ask accept it.
${examples("pilot-tun id rotate --registry registry.example:443 --registry-tls")}`;

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
  const { stateDir, access } = parseAccess(input);
  const { rotateKey } = await import("../daemon/identity.ts");
  const facts = await rotateKey(stateDir, access);
  context.answer({ schema: SCHEMA, ...facts }, () => [
    `rotated: was ${facts.previousFingerprint}`,
    ...factLines(facts, context),
  ]);
  context.advise("peers refuse the new key until their operators run trust revoke and trust ask");
  return EXIT.ok;
}

async function deregister(context: Context, input: Input): Promise<ExitCode> {
  const { stateDir, access } = parseAccess(input);
  const daemon = await import("../daemon/identity.ts");
  const facts = await daemon.deregister(stateDir, access);
  context.answer({ schema: SCHEMA, ...facts }, () => [`deregistered ${facts.pilot}; its number and key are kept`]);
  return EXIT.ok;
}

function factLines(facts: IdentityFacts, context: Context): string[] {
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
