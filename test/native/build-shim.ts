/** Builds the shim if its sources are newer: called by every test here before it makes a plane. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type NativeShim, nativeShim } from "../../src/io/native.ts";

let built = false;

export function builtShim(): NativeShim {
  if (!built) execFileSync(fileURLToPath(new URL("../../scripts/build-native", import.meta.url)), { stdio: "inherit" });
  built = true;
  return nativeShim();
}
