/** What happens, for whoever looks on: nothing twice, nothing lost unseen, and nobody waits longer than he must. */
import { AsyncResource } from "node:async_hooks";
import { describe, expect, it, vi } from "vitest";
import type { Problem } from "../../src/base/error-code.ts";
import { run } from "../../src/cli/program.ts";
import { onBehalfOf } from "../../src/control/caller.ts";
import type { EventsReply } from "../../src/control/events-api.ts";
import { LiveEvents } from "../../src/daemon/live-events.ts";
import { event, START } from "../helpers/audit-log.ts";
import { CapturedProcess, EVENTS, fakeBackend, runCli, withServer } from "../helpers/control-fixture.ts";

const soon = () => AbortSignal.timeout(10_000);
const names = ({ events }: EventsReply) => events.map((one) => one.event);

describe("live events", () => {
  it("are told from where the last reply ended, and the newest to who has none", async () => {
    const live = new LiveEvents(undefined);
    for (let i = 0; i < 30; i++) live.add(event(`e-${i}`));
    const first = await live.next({}, soon());
    expect(names(first)).toEqual(Array.from({ length: 20 }, (_, i) => `e-${i + 10}`));
    live.add(event("later", { n: 1 }));
    const second = await live.next({ run: first.run, after: first.next }, soon());
    expect(second).toMatchObject({
      missed: 0,
      events: [{ event: "later", facts: { n: 1 }, at: "2030-03-17T17:46:40.000Z" }],
    });
    expect((await live.next({ run: second.run, after: second.next }, soon())).events).toEqual([]);
  });

  it("say how many nobody remembers any more", async () => {
    const live = new LiveEvents(undefined);
    const { run, next: after } = await live.next({}, soon());
    for (let i = 0; i < 2_000; i++) live.add(event(`e-${i}`));
    const reply = await live.next({ run, after }, soon());
    expect(reply.missed).toBe(2_000 - 1_024);
    expect(reply.events).toHaveLength(1_024);
    expect(reply.events[0]!.event).toBe(`e-${reply.missed}`);
  });

  it("wake everybody who waits, soon, and let go who waited in vain or went away", async () => {
    const live = new LiveEvents(undefined);
    const { run, next: after } = await live.next({}, soon());
    const waiting = [1, 2, 3].map(() => live.next({ run, after, waitMs: 10_000 }, soon()));
    live.add(event("now"));
    for (const reply of await Promise.all(waiting)) expect(names(reply)).toEqual(["now"]);
    const late = after + 1;
    expect((await live.next({ run, after: late, waitMs: 20 }, soon())).events).toEqual([]);
    const gone = new AbortController();
    const given = live.next({ run, after: late, waitMs: 60_000 }, gone.signal);
    gone.abort();
    expect((await given).events).toEqual([]);
  });

  it("begin anew with the daemon", async () => {
    const before = await new LiveEvents(undefined).next({}, soon());
    const live = new LiveEvents(undefined);
    live.add(event("first"));
    const reply = await live.next({ run: before.run, after: 700 }, soon());
    expect(reply.run).not.toBe(before.run);
    expect(names(reply)).toEqual(["first"]);
  });

  it("tell of problems that appear and go, while somebody waits", async () => {
    const live = new LiveEvents(undefined);
    let problems: Problem[] = [{ code: "registry_down", message: "no answer", hint: "wait" }];
    live.problems = () => problems;
    const first = await live.next({}, soon());
    expect(first.events).toMatchObject([{ event: "problem", facts: { state: "appeared", code: "registry_down" } }]);
    const next = live.next({ run: first.run, after: first.next, waitMs: 10_000 }, soon());
    problems = [];
    expect((await next).events).toMatchObject([{ event: "problem", facts: { state: "gone", code: "registry_down" } }]);
  });

  it("name who asked for what a person did, also behind a wait, and nobody after the request", async () => {
    const live = new LiveEvents(undefined);
    const who = { pid: 4121, uid: 0, gids: [0], user: "root", program: "node", login: { uid: 1000, user: "ann" } };
    let later = () => {};
    await onBehalfOf(
      () => who,
      async () => {
        await Promise.resolve();
        live.add({ ...event("trust"), byOperator: true });
        live.add(event("denial"));
        later = AsyncResource.bind(() => live.add({ ...event("timer"), byOperator: true }));
      },
    );
    later();
    live.add({ ...event("policy"), byOperator: true });
    const { events } = await live.next({}, soon());
    expect(events.map(({ facts }) => facts.by)).toEqual([who, undefined, null, null]);
  });

  it("go to the audit log as well, unless they are of the moment", () => {
    const kept: string[] = [];
    const live = new LiveEvents({ add: (one: { event: string }) => void kept.push(one.event) } as never);
    live.add(event("trust"));
    live.add({ event: "path", at: START, isFleeting: true, fields: () => ({}) });
    expect(kept).toEqual(["trust"]);
  });
});

describe("pilot-tun events", () => {
  it("prints what happened lately, for people and for programs", async () => {
    const { code, out } = await runCli(["events"]);
    expect(code).toBe(0);
    expect(out).toBe(
      "2030-12-31 18:00:00  trust       bob: asked → mutual\n" +
        "2030-12-31 18:00:01  path        bob: direct, 198.51.100.7:4000\n",
    );
    expect(JSON.parse((await runCli(["--json", "events"])).out)).toMatchObject(EVENTS);
  });

  it("goes on with --watch until interrupted, one line for each", async () => {
    const live = new LiveEvents(undefined);
    await withServer(fakeBackend({ events: live }), async (path) => {
      const captured = new CapturedProcess();
      const ended = run(["--json", "--control", path, "events", "--watch"], captured);
      live.add(event("trust", { n: 1 }));
      await vi.waitFor(() => expect(captured.out).toContain('"n":1'));
      live.add(event("denial", { n: 2 }));
      await vi.waitFor(() => expect(captured.out).toContain('"n":2'), 5_000);
      captured.signal("SIGINT");
      expect(await ended).toBe(0);
      expect(
        captured.out
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line).event),
      ).toEqual(["trust", "denial"]);
    });
  });
});
