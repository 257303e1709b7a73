/** Builds the shim if its sources are newer: imported by every test here before it makes a plane. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type NativeShim, nativeShim } from "../../src/io/native.ts";

export function builtShim(): NativeShim {
  execFileSync(fileURLToPath(new URL("../../scripts/build-native", import.meta.url)), { stdio: "inherit" });
  return nativeShim();
}
