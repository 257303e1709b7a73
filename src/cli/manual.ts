/** The manual page, pilot-tun(8), from the same declarations as --help. man(7) macros. */
import type { CommandFacts, OptionFacts } from "./command-tree.ts";

/** The page as roff source. */
export function manualPage(commands: readonly CommandFacts[], version: string): string {
  const [program, ...others] = commands;
  return [
    `.TH PILOT\\-TUN 8 "" "pilot\\-tun ${roff(version)}" "System Administration"`,
    ".SH NAME",
    "pilot\\-tun \\- the Pilot overlay as a network interface",
    ".SH SYNOPSIS",
    ".B pilot\\-tun",
    "[\\fIoptions\\fR] [\\fIcommand\\fR]",
    ".SH DESCRIPTION",
    ...DESCRIPTION.map(roff),
    ".SH OPTIONS",
    ...program!.options.flatMap(optionLines),
    ".SH COMMANDS",
    ...others.filter(({ isAction }) => isAction).flatMap(commandLines),
    ".SH NOTES",
    ...remarkLines(program!.remarks).slice(1),
    ".SH FILES",
    ...FILES.flatMap(([path, text]) => [".TP", `.I ${roff(path)}`, roff(text)]),
    ".SH ENVIRONMENT",
    ...VARIABLES.flatMap(([name, text]) => [".TP", `.B ${roff(name)}`, roff(text)]),
    ".SH SIGNALS",
    "SIGHUP: read configuration and policy again. SIGTERM, SIGINT: end cleanly; a second one ends at once.",
    ".SH SEE ALSO",
    ".BR systemctl (1),",
    ".BR ip (8)",
    "",
  ].join("\n");
}

const DESCRIPTION = [
  "Maps the addresses of a Pilot overlay onto an IPv6 prefix, moves packets between a TUN device and encrypted tunnels,",
  "and enforces at the interface that both sides of a connection trust each other. Programs reach trusted agents by",
  "ordinary addresses and names, unchanged.",
];

const FILES = [
  ["/etc/pilot-tun/config.toml", "Options of up; /etc/pilot-tun-NAME for an instance."],
  ["/etc/pilot-tun/policy, /etc/pilot-tun/policy.d/*.policy", "What may pass."],
  ["/etc/pilot-tun/rendezvous.toml", "Options of rendezvous."],
  ["/var/lib/pilot-tun", "Identity, trust, caches, the audit log."],
  ["/run/pilot-tun/control.sock", "The daemon's control socket."],
] as const;

const VARIABLES = [
  [
    "PILOT_TUN_OPTION",
    "The value of --option of up and rendezvous, above the configuration file and below the command line.",
  ],
  ["PILOT_TUN_INSTANCE, PILOT_TUN_CONTROL", "As --instance and --control, for every command."],
  ["NO_COLOR", "Plain text even on a terminal."],
] as const;

function commandLines(command: CommandFacts): string[] {
  return [
    ".SS",
    `\\fBpilot\\-tun ${roff(command.name)}\\fR ${roff(command.usage.replace(/^\[options\] ?/, ""))}`.trimEnd(),
    `${roff(sentence(command.description))}`,
    ...command.arguments.filter(({ description }) => description !== "").flatMap(argumentLines),
    ...command.options.flatMap(optionLines),
    ...remarkLines(command.remarks),
  ];
}

function argumentLines({ name, description }: CommandFacts["arguments"][number]): string[] {
  return [".TP", `.I ${roff(name)}`, roff(sentence(description))];
}

function optionLines({ long, short, value, description, default: standard }: OptionFacts): string[] {
  const names = [short, long].filter((name) => name !== null).map((name) => `\\fB${roff(name)}\\fR`);
  const tail = value === null ? "" : ` \\fI${roff(value.replace(/[<>[\]]/g, ""))}\\fR`;
  const text = standard === null ? description : `${description} (default: ${standard})`;
  return [".TP", `${names.join(", ")}${tail}`, roff(sentence(text))];
}

/** Lines that begin with a blank are examples and stay as they are. */
function remarkLines(remarks: string): string[] {
  if (remarks === "") return [];
  const out: string[] = [".PP"];
  let inExample = false;
  for (const line of remarks.split("\n")) {
    const isExample = /^\s/.test(line);
    if (isExample !== inExample) out.push(isExample ? ".nf" : ".fi");
    inExample = isExample;
    out.push(line === "" ? ".PP" : roff(line));
  }
  if (inExample) out.push(".fi");
  return out;
}

function sentence(text: string): string {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.:]$/.test(capital) ? capital : `${capital}.`;
}

/** Backslashes and hyphens as themselves; a dot or quote at the start of a line is no request. */
function roff(text: string): string {
  const line = text.replaceAll("\\", "\\e").replaceAll("-", "\\-");
  return /^[.']/.test(line) ? `\\&${line}` : line;
}
