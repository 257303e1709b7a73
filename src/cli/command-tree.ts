/** The commands as data, read off what was declared to commander: the one source of manual, completions and `context`. */
import type { Command, Option } from "commander";

export interface CommandFacts {
  /** `trust approve`; empty for the program itself. */
  readonly name: string;
  readonly description: string;
  /** What follows the name: `[options] <PEER>`. */
  readonly usage: string;
  readonly arguments: readonly ArgumentFacts[];
  readonly options: readonly OptionFacts[];
  /** What the help says below its lists: remarks and examples. */
  readonly remarks: string;
  /** Set when it does something itself, not only by its subcommands. */
  readonly isAction: boolean;
}

export interface ArgumentFacts {
  readonly name: string;
  readonly description: string;
  readonly required: boolean;
}

export interface OptionFacts {
  readonly long: string;
  readonly short: string | null;
  /** `<FILE>`; null for a switch. */
  readonly value: string | null;
  readonly description: string;
  readonly default: string | null;
}

/** The program first, then every command in the order of the help, each followed by its subcommands. */
export function commandFacts(program: Command): CommandFacts[] {
  const found: CommandFacts[] = [];
  const visit = (command: Command, name: string): void => {
    found.push(factsOf(command, name));
    for (const child of visibleCommands(command)) visit(child, `${name} ${child.name()}`.trim());
  };
  visit(program, "");
  return found;
}

/** Without `help`, which commander adds to every command that has others. */
function visibleCommands(command: Command): Command[] {
  const visible = command.createHelp().visibleCommands(command) as Command[];
  return visible.filter((child) => child.name() !== "help");
}

function factsOf(command: Command, name: string): CommandFacts {
  return {
    name,
    description: command.description(),
    usage: command.usage(),
    arguments: command.registeredArguments.map((argument) => ({
      name: argument.name(),
      description: argument.description,
      required: argument.required,
    })),
    options: command.options.filter((option) => !option.hidden).map(optionFacts),
    remarks: remarksOf(command),
    isAction: visibleCommands(command).length === 0 || command.options.length > 0,
  };
}

function optionFacts(option: Option): OptionFacts {
  return {
    long: option.long ?? option.flags,
    short: option.short ?? null,
    value: /[<[][^>\]]+[>\]]$/.exec(option.flags)?.[0] ?? null,
    description: option.description,
    default: option.defaultValue === undefined || option.defaultValue === true ? null : String(option.defaultValue),
  };
}

/** commander keeps no texts that were added to a help; it prints them. */
function remarksOf(command: Command): string {
  const plain = command.helpInformation();
  let whole = "";
  const before = command.configureOutput();
  command.configureOutput({ ...before, writeOut: (text) => (whole += text) });
  command.outputHelp();
  command.configureOutput(before);
  return whole.startsWith(plain) ? whole.slice(plain.length).trim() : "";
}
