import { expect, it } from "vitest";
import { fakeBackend, runCli, TRACE } from "../helpers/control-fixture.ts";

it("trace shows the path, why it is not direct, each endpoint and the changes", async () => {
  const { code, out } = await runCli(["trace", "bob"]);
  expect(code).toBe(0);
  expect(out).toMatch(/^path +relay by 203\.0\.113\.1:9001$/m);
  expect(out).toMatch(/^direct +no: no candidate answers$/m);
  expect(out).toMatch(/^198\.51\.100\.7:4000 +registry +silent +3 +1 s ago +- +-$/m);
  expect(out).toMatch(/^ {2}12 s ago: relay$/m);
});

it("trace with --json prints the reply as it is", async () => {
  const { out } = await runCli(["trace", "bob", "--json"]);
  expect(JSON.parse(out)).toMatchObject({ notDirect: { code: "no-answer" }, candidates: TRACE.candidates });
});

it("trace of a peer that does not answer says so, and ends with 6", async () => {
  const backend = fakeBackend({ trace: async () => ({ ...TRACE, answered: false }) });
  const { code, out } = await runCli(["trace", "bob"], backend);
  expect(code).toBe(6);
  expect(out).toMatch(/^answers +no: nothing came back/m);
});

it("trace of a direct path says so, and shows no control characters of what a peer sent", async () => {
  const local = ["192.168.1.2\x1b[31m"];
  const backend = fakeBackend({
    trace: async () => ({ ...TRACE, path: "direct", notDirect: null, history: [], local }),
  });
  const { out } = await runCli(["trace", "bob"], backend);
  expect(out).toMatch(/^direct +yes$/m);
  expect(out).not.toContain("\x1b");
});
