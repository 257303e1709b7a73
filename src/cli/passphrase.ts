/** A passphrase: out of a file, or asked for at the terminal; never an argument or a variable, which others on this host see. */
import type { Context } from "./context.ts";
import { UsageError, usageProblem } from "./refusal.ts";
import { secretIn } from "./secret-file.ts";

export const PASSPHRASE_OPTION = ["--passphrase-file <FILE>", "where the passphrase is; asked for without it"] as const;

/** One to be remembered is asked for twice, and must not be guessed easily. Throws UsageError. */
export async function passphraseOf(context: Context, file: unknown, use: "new" | "known"): Promise<string> {
  const passphrase = secretIn("--passphrase-file", file) ?? (await askTwice(context, use));
  if (use === "known" || passphrase.length >= LEAST_LENGTH) return passphrase;
  throw mistake(
    `A passphrase has at least ${LEAST_LENGTH} characters`,
    "Take five or six words at random: who has the file can try as many as he likes.",
  );
}

async function askTwice({ environment }: Context, use: "new" | "known"): Promise<string> {
  const first = await environment.askSecret("Passphrase of the backup: ");
  if (first === undefined) {
    throw mistake(
      "There is no terminal to ask for the passphrase",
      "Write it into a file, and give --passphrase-file.",
    );
  }
  if (use === "new" && (await environment.askSecret("The same again: ")) !== first) {
    throw mistake("The two passphrases differ", "Run the command again.");
  }
  return first;
}

function mistake(message: string, hint: string): UsageError {
  return new UsageError([usageProblem(message, hint)]);
}

const LEAST_LENGTH = 12;
