/**
 * Completion of the command line in bash, zsh and fish, from the same declarations as --help. Names of peers come from
 * the running daemon; without one there are just none.
 */
import type { CommandFacts, OptionFacts } from "./command-tree.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** The script to source, or to install where the shell looks for completions. */
export function completionScript(shell: Shell, commands: readonly CommandFacts[]): string {
  if (shell === "bash") return bashScript(commands);
  return shell === "zsh" ? zshScript(commands) : fishScript(commands);
}

/** What may follow the command of this name. */
interface Follow {
  readonly name: string;
  readonly words: readonly string[];
  readonly peers: boolean;
}

function follows(commands: readonly CommandFacts[]): Follow[] {
  const shared = commands[0]!.options.flatMap(optionNames);
  return commands.map((command) => {
    const children = commands
      .filter(({ name }) => isChild(name, command.name))
      .map(({ name }) => name.split(" ").at(-1)!);
    const own = command.name === "" ? [] : command.options.flatMap(optionNames);
    return { name: command.name, words: [...children, ...own, ...shared], peers: takesPeer(command) };
  });
}

function isChild(name: string, parent: string): boolean {
  if (name === "" || name === parent) return false;
  return parent === ""
    ? !name.includes(" ")
    : name.startsWith(`${parent} `) && name.split(" ").length === parent.split(" ").length + 1;
}

function takesPeer(command: CommandFacts): boolean {
  return command.arguments.some(({ name }) => name === "PEER");
}

function optionNames({ long, short }: OptionFacts): string[] {
  return short === null ? [long] : [short, long];
}

const PEERS = `pilot-tun --json peers 2>/dev/null | grep -o '"hostname":"[a-z0-9-]*"' | cut -d '"' -f 4`;

function bashScript(commands: readonly CommandFacts[]): string {
  const cases = follows(commands).map(({ name, words, peers }) => {
    const list = `words=${quote(words.join(" "))}`;
    return `    ${quote(name)}) ${list}${peers ? '; words+=" $(_pilot_tun_peers)"' : ""} ;;`;
  });
  const known = commands.map(({ name }) => name).filter((name) => name !== "");
  return `# bash completion for pilot-tun
_pilot_tun_peers() { ${PEERS}; }

_pilot_tun() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" word words next
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    next="\${path:+$path }$word"
    case "$next" in
      ${known.map(quote).join("|")}) path="$next" ;;
    esac
  done
  case "$path" in
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ $current != -* ]]; then COMPREPLY+=($(compgen -f -- "$current")); fi
}
complete -o filenames -F _pilot_tun pilot-tun
`;
}

/** zsh can run bash's; one table less to keep. */
function zshScript(commands: readonly CommandFacts[]): string {
  return `#compdef pilot-tun\nautoload -U +X bashcompinit && bashcompinit\n${bashScript(commands)}`;
}

function fishScript(commands: readonly CommandFacts[]): string {
  const lines = ["# fish completion for pilot-tun", "complete -c pilot-tun -f"];
  for (const command of commands) {
    const parents = command.name.split(" ");
    if (command.name !== "") {
      const parent = parents.slice(0, -1).join(" ");
      const when = parent === "" ? "__fish_use_subcommand" : `__fish_seen_subcommand_from ${parent}`;
      lines.push(
        `complete -c pilot-tun -n ${quote(when)} -a ${quote(parents.at(-1)!)} -d ${quote(command.description)}`,
      );
    }
    const when = command.name === "" ? "" : ` -n ${quote(`__fish_seen_subcommand_from ${parents.at(-1)}`)}`;
    for (const option of command.options) lines.push(fishOption(option, when));
    if (takesPeer(command)) lines.push(`complete -c pilot-tun${when} -a ${quote(`(${PEERS})`)}`);
  }
  return `${lines.join("\n")}\n`;
}

function fishOption({ long, short, value, description }: OptionFacts, when: string): string {
  const names = `-l ${long.replace(/^--/, "")}${short === null ? "" : ` -s ${short.slice(1)}`}`;
  return `complete -c pilot-tun${when} ${names}${value === null ? "" : " -r -F"} -d ${quote(description)}`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
