/**
 * Loaded into a daemon by `node --import`: keeps a descriptor or four MiB more each 100 ms, as PILOT_LEAK says. Proves that the
 * eye of the soak for leaks sees them.
 */
import { openSync } from "node:fs";

const kept: (number | Buffer)[] = [];
setInterval(() => {
  if (process.env["PILOT_LEAK"] === "descriptors") kept.push(openSync("/dev/null", "r"));
  else kept.push(Buffer.alloc(4 << 20, 1));
}, 100).unref();
