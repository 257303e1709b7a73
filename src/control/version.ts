/** The program's version, read from the package's own file so that it is written down once. */
import { readFileSync } from "node:fs";

/** `src/control/` and `dist/control/` lie equally deep. */
const PACKAGE_FILE = new URL("../../package.json", import.meta.url);

export const VERSION: string = (JSON.parse(readFileSync(PACKAGE_FILE, "utf8")) as { version: string }).version;
