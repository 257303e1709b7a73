/** Files of the state folder, on a disk that takes a part of them. */
import { execFileSync } from "node:child_process";
import { mkdtempDisposableSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { StateDirectory } from "../../src/io/state-directory.ts";

const SOURCE = fileURLToPath(new URL("../../src/io/state-directory.ts", import.meta.url));

it("a file that the disk takes a part of is not put in the place of the whole one", () => {
  using folder = mkdtempDisposableSync(join(tmpdir(), "state-"));
  new StateDirectory(folder.path).save("trust.json", { version: 1 });
  const program = `
    import { StateDirectory } from ${JSON.stringify(SOURCE)};
    try { new StateDirectory(${JSON.stringify(folder.path)}).save("trust.json", { text: "x".repeat(10_000) }); }
    catch (error) { console.log(error.code); }
  `;
  // A write across this limit is cut short like one on a full disk: it says how much it took, and only the next one fails.
  const limited = `trap '' XFSZ; exec prlimit --fsize=4096 "$0" --input-type=module -e "$1"`;
  const said = execFileSync("sh", ["-c", limited, process.execPath, program], { encoding: "utf8", timeout: 20_000 });
  expect(said).toBe("state_unwritable\n");
  expect(JSON.parse(readFileSync(join(folder.path, "trust.json"), "utf8"))).toEqual({ version: 1 });
});
