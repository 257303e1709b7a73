/** Who is told what about why: a peer that is trusted what it would find out by trying, nobody else anything. */
import { describe, expect, it } from "vitest";
import { NO_TERMS } from "../../src/wire/ask-text.ts";
import type { WhyAnswer } from "../../src/wire/bridge.ts";
import { parseServices } from "../../src/wire/services.ts";
import type { SimNetwork, SimNode } from "../helpers/sim-network.ts";
import { friends, setPolicy } from "../helpers/sim-policy.ts";

const TCP = 6;

/** b's programs listen on port 80 alone. */
function ask(
  network: SimNetwork,
  a: SimNode,
  b: SimNode,
  port: number,
  begins: "sender" | "receiver" = "sender",
): WhyAnswer[] {
  a.events.length = 0;
  b.events.length = 0;
  a.command((engine) => engine.gate.explanations.ask(b.node, { protocol: TCP, port, begins }));
  network.run(50);
  for (const event of b.events) {
    if (event.kind !== "why-asked") continue;
    const hasListener = event.question.port === 80;
    b.command((engine) =>
      engine.gate.explanations.answerFor(event.node, event.question, { hasListener, owner: undefined }),
    );
  }
  network.run(50);
  return a.events.flatMap((event) => (event.kind === "why-answered" ? [event.answer] : []));
}

describe("a question why", () => {
  it("of a trusted peer is answered with yes or no, and after a yes whether somebody listens", () => {
    const { network, a, b } = friends();
    setPolicy(network, b, "allow in tcp 80-81 from a\nallow out tcp 90 to a");
    expect(ask(network, a, b, 80)).toMatchObject([{ isAllowed: true, hasListener: true }]);
    expect(ask(network, a, b, 81)).toMatchObject([{ isAllowed: true, hasListener: false }]);
    expect(ask(network, a, b, 22)).toMatchObject([{ isAllowed: false, hasListener: undefined }]);
    expect(b.events.some(({ kind }) => kind === "why-asked")).toBe(false);
    expect(ask(network, a, b, 90, "receiver")).toMatchObject([{ isAllowed: true, hasListener: undefined }]);
    expect(ask(network, a, b, 91, "receiver")).toMatchObject([{ isAllowed: false }]);
  });

  it("is answered within the lease, and with no while a lockdown is on", () => {
    const { network, a, b } = friends();
    b.command((engine, now) =>
      engine.introductions.approve(a.node, now, { ...NO_TERMS, services: parseServices("tcp/80") }),
    );
    expect(ask(network, a, b, 81)).toMatchObject([{ isAllowed: false }]);
    expect(ask(network, a, b, 80)).toMatchObject([{ isAllowed: true }]);
    b.command((engine, now) =>
      engine.admission.setLockdown({ except: [], since: network.wall, until: undefined }, now),
    );
    expect(ask(network, a, b, 80)).toMatchObject([{ isAllowed: false, hasListener: undefined }]);
  });

  it("of anybody else gets no answer at all", () => {
    const { network, a, b } = friends();
    // b has a session with a, and trusts it no longer: a has not heard.
    network.tap = (flight) => (flight.from === b.endpoint ? undefined : flight);
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(100);
    network.tap = (flight) => flight;
    const before = network.captured.length;
    a.command((engine) => engine.gate.explanations.ask(b.node, { protocol: TCP, port: 80, begins: "sender" }));
    network.run(20);
    expect(b.engine.drops()["not-trusted"]).toBe(1);
    // Nothing goes back but the news that it was revoked, which is due anyhow.
    expect(network.captured.slice(before).filter(({ from }) => from === b.endpoint).length).toBeLessThanOrEqual(1);
    expect(a.events.some(({ kind }) => kind === "why-answered")).toBe(false);
  });

  it("is not answered more than a few times a second", () => {
    const { network, a, b } = friends();
    let answers = 0;
    for (let i = 0; i < 40; i++) answers += ask(network, a, b, 80).length;
    expect(answers).toBeGreaterThanOrEqual(10);
    expect(answers).toBeLessThan(25);
    expect(b.engine.drops()["questions-limited"]).toBe(40 - answers);
  });

  it("is not put to a peer that does not know such questions", () => {
    const { network, a, b } = friends();
    expect(a.engine.gate.explanations.isAnsweredBy(b.node)).toBe(true);
    a.book.put({ ...a.book.get(b.node)!, agreesOnKeys: undefined }); // or a would take nothing from a plain agent
    b.kill();
    b.plainOnly = true;
    b.start();
    a.command((engine, now) => engine.ping(b.node, now));
    network.run(10_000);
    expect(a.engine.gate.explanations.isAnsweredBy(b.node)).toBe(false);
  });
});
