import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Instant, instant } from "../../src/base/instant.ts";
import { type TransportAction, TransportChoice } from "../../src/beacon/transport-choice.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

/** A network around the choice: what works, what was done, and a clock that jumps from one deadline to the next. */
class World {
  now: Instant = instant(0);
  udpWorks = true;
  tcpWorks = true;
  isLost = (): boolean => false;
  readonly log: string[] = [];
  probes = 0;
  readonly choice: TransportChoice;

  constructor(canUseTcp = true) {
    this.choice = new TransportChoice(canUseTcp, this.now);
  }

  run(ms: number): void {
    const end = instant(this.now + ms);
    for (let steps = 0; ; steps++) {
      if (steps > 10_000) throw new Error("it does not let time pass");
      for (let action = this.choice.pollAction(); action !== undefined; action = this.choice.pollAction())
        this.#do(action);
      const { at } = this.choice.pollTimeout();
      if (at > end) break;
      this.now = at > this.now ? at : this.now;
      this.choice.handleTimeout(this.now);
    }
    this.now = end;
  }

  #do(action: TransportAction): void {
    if (action.kind === "probe-udp") {
      this.probes++;
      if (this.udpWorks && !this.isLost()) this.choice.handleUdpAnswer(this.now);
      return;
    }
    this.log.push(action.kind === "use" ? action.transport : action.kind);
    if (action.kind !== "open-tcp") return;
    if (this.tcpWorks) this.choice.handleTcpOpen(this.now);
    else this.choice.handleTcpClosed(this.now);
  }
}

describe("the way to the beacon", () => {
  it("stays UDP while UDP answers, probed every two seconds for a minute after each use and every eight later", () => {
    const world = new World();
    const idle = (rounds: number): number => {
      const before = world.probes;
      for (let i = 0; i < rounds; i++) {
        world.run(20_000);
        world.choice.handleUdpAnswer(world.now); // the keepalive's answer
      }
      return world.probes - before;
    };
    expect(idle(3)).toBeLessThanOrEqual(31);
    expect(idle(30)).toBe(60);
    world.choice.noteUse(world.now);
    const probes = idle(3);
    expect(probes).toBeGreaterThanOrEqual(26);
    expect(probes).toBeLessThanOrEqual(30);
    expect(idle(30)).toBe(60);
    expect(world.log).toEqual([]);
    expect(world.choice.isBlocked(world.now)).toBe(false);
  });

  it("becomes TCP within three seconds when nothing answers from the start", () => {
    const world = new World();
    world.udpWorks = false;
    world.run(3_000);
    expect(world.log).toEqual(["open-tcp", "tcp"]);
    expect(world.probes).toBeGreaterThanOrEqual(4);
    expect(world.choice.transport).toBe("tcp");
    expect(world.choice.isBlocked(world.now)).toBe(true);
  });

  it("becomes TCP within three seconds of a suspicion, and not by a suspicion that UDP answers", () => {
    const world = new World();
    world.run(10_000);
    world.choice.handleSuspicion(world.now);
    world.run(10_000);
    expect(world.log).toEqual([]);
    world.udpWorks = false;
    world.choice.handleSuspicion(world.now);
    world.run(3_000);
    expect(world.log).toEqual(["open-tcp", "tcp"]);
  });

  it("finds a block by itself within 4.5 s when the node was in use in the last minute, though nothing is sent", () => {
    for (const idleMs of [500, 2_500, 20_000, 55_000]) {
      const world = new World();
      world.run(200_000);
      world.choice.noteUse(world.now);
      world.run(idleMs);
      world.udpWorks = false;
      world.run(4_500);
      expect(world.choice.transport, `${idleMs} ms`).toBe("tcp");
    }
  });

  it("finds a block within 2.5 s of the first packet after an idle hour", () => {
    const world = new World();
    for (let i = 0; i < 180; i++) {
      world.run(20_000);
      world.choice.handleUdpAnswer(world.now);
    }
    world.udpWorks = false;
    world.run(7_000);
    expect(world.choice.transport).toBe("udp");
    world.choice.noteUse(world.now);
    world.run(2_500);
    expect(world.choice.transport).toBe("tcp");
  });

  it("finds a block by itself within eleven seconds when the node is idle", () => {
    const world = new World();
    for (let i = 0; i < 10; i++) {
      world.run(20_000);
      world.choice.handleUdpAnswer(world.now);
    }
    world.udpWorks = false;
    world.run(11_000);
    expect(world.choice.transport).toBe("tcp");
  });

  it("is mistaken a few times an hour at most when a fifth is lost each way, and comes back", () => {
    const world = new World();
    const random = seededBytes(7);
    world.isLost = () => random(1)[0]! < 0.36 * 256; // either way
    for (let minute = 0; minute < 60; minute++) {
      world.choice.noteUse(world.now);
      world.run(60_000);
    }
    expect(world.log.filter((entry) => entry === "tcp").length).toBeLessThanOrEqual(6);
    expect(world.choice.transport).toBe("udp");
  });

  it("probes UDP every two seconds on TCP, and goes back with the first answer", () => {
    const world = new World();
    world.udpWorks = false;
    world.run(3_000);
    world.probes = 0;
    world.run(20_000);
    expect(world.probes).toBe(10);
    world.udpWorks = true;
    world.run(2_100);
    expect(world.log).toEqual(["open-tcp", "tcp", "close-tcp", "udp"]);
    expect(world.choice.isBlocked(world.now)).toBe(false);
  });

  it("asks for ever more answers in a row when the way back keeps failing", () => {
    const world = new World();
    const backMs: number[] = [];
    for (let round = 0; round < 4; round++) {
      world.udpWorks = false;
      world.choice.handleSuspicion(world.now);
      world.run(5_000);
      expect(world.choice.transport).toBe("tcp");
      world.udpWorks = true;
      const since = world.now;
      while (world.choice.transport === "tcp") world.run(100);
      backMs.push(world.now - since);
    }
    expect(backMs[1]).toBeGreaterThan(backMs[0]! + 1_500);
    expect(backMs[2]).toBeGreaterThan(backMs[1]! + 3_000);
    expect(backMs[3]).toBeGreaterThan(backMs[2]! + 6_000);
  });

  it("keeps trying TCP, ever more seldom, while neither way works, and takes UDP the moment it answers", () => {
    const world = new World();
    world.udpWorks = false;
    world.tcpWorks = false;
    world.run(120_000);
    const attempts = world.log.filter((entry) => entry === "open-tcp").length;
    expect(attempts).toBeGreaterThan(5);
    expect(attempts).toBeLessThan(15);
    expect(world.choice.transport).toBe("udp");
    expect(world.choice.isBlocked(world.now)).toBe(true);
    world.udpWorks = true;
    world.run(2_000);
    expect(world.choice.isBlocked(world.now)).toBe(false);
  });

  it("opens TCP again when the connection ends, without a visit to UDP", () => {
    const world = new World();
    world.udpWorks = false;
    world.run(3_000);
    world.choice.handleTcpClosed(world.now);
    world.run(1_000);
    expect(world.log).toEqual(["open-tcp", "tcp", "open-tcp", "tcp"]);
  });

  it("never opens TCP where there is none to open, and still tells that UDP is blocked", () => {
    const world = new World(false);
    world.udpWorks = false;
    world.run(60_000);
    expect(world.log).toEqual([]);
    expect(world.choice.isBlocked(world.now)).toBe(true);
  });

  it("closes a connection that comes too late: UDP has answered while it was being opened", () => {
    const choice = new TransportChoice(true, instant(0));
    const drain = (): string[] => {
      const kinds: string[] = [];
      for (let action = choice.pollAction(); action !== undefined; action = choice.pollAction())
        kinds.push(action.kind);
      return kinds;
    };
    drain();
    choice.handleTimeout(instant(2_000));
    expect(drain()).toContain("open-tcp");
    choice.handleUdpAnswer(instant(2_100));
    expect(drain()).toEqual(["close-tcp"]);
    choice.handleTcpOpen(instant(2_200));
    expect(drain()).toEqual([]);
    expect(choice.transport).toBe("udp");
  });

  it("ends on the way that works, whatever came before", () => {
    const step = fc.record({ udp: fc.boolean(), tcp: fc.boolean(), ms: fc.integer({ min: 0, max: 20_000 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), fc.boolean(), (steps, udpAtLast) => {
        const world = new World();
        for (const { udp, tcp, ms } of steps) {
          world.udpWorks = udp;
          world.tcpWorks = tcp;
          world.choice.handleSuspicion(world.now);
          world.run(ms);
        }
        world.udpWorks = udpAtLast;
        world.tcpWorks = true;
        world.run(120_000);
        expect(world.choice.transport).toBe(udpAtLast ? "udp" : "tcp");
      }),
    );
  });
});
