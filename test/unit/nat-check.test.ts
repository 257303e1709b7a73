import { expect, it } from "vitest";
import { behaviour } from "../../src/daemon/nat-check.ts";

/** `near`: a port beside one that was written to; `far`: one on an address that was not. */
it.each([
  [{ near: true, far: true }, "endpoint-independent"],
  [{ far: true }, "endpoint-independent"],
  [{ near: true, far: false }, "address-dependent"],
  [{ near: false, far: false }, "address-and-port-dependent"],
  [{ near: false }, "address-and-port-dependent"],
  [{ near: true }, "endpoint-independent-or-address-dependent"],
  [{ far: false }, "address-dependent-or-stricter"],
  [{}, "unknown"],
])("what was found, %j, is called %s", (found, word) => {
  expect(behaviour(found)).toBe(word);
});
