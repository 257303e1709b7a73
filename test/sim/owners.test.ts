/** Rules about local programs: flows wait until it is known whose socket theirs is. */
import { describe, expect, it } from "vitest";
import type { OwnerQuestion } from "../../src/engine/owner-questions.ts";
import type { SocketOwner } from "../../src/policy/socket-owner.ts";
import { TCP, tcpPacket } from "../helpers/inner-packets.ts";
import type { SimNetwork, SimNode } from "../helpers/sim-network.ts";
import { between, echo, friends, icmp, setPolicy, udp } from "../helpers/sim-policy.ts";

const CURL = { pid: 7, name: "curl", groups: [200], cgroup: "/a.service" };
const ANN: SocketOwner = { uid: 1000, cgroup: undefined, programs: [CURL] };
const BEN: SocketOwner = { uid: 1001, cgroup: undefined, programs: [] };

/** The questions that a node has asked since the last look. */
function questions(node: SimNode): OwnerQuestion[] {
  const asked = node.events.flatMap((event) => (event.kind === "owner-wanted" ? [event.question] : []));
  node.events.length = 0;
  return asked;
}

function answer(network: SimNetwork, node: SimNode, owner: SocketOwner | undefined): OwnerQuestion[] {
  const asked = questions(node);
  for (const { id } of asked) node.command((engine, now) => engine.answerOwner(id, owner, now));
  network.run(20);
  return asked;
}

const syn = (from: SimNode, to: SimNode) => tcpPacket({ ...between(from, to), flags: TCP.SYN, sourcePort: 40_000 });

describe("a rule by owner", () => {
  it("lets a program's first packet wait, and go once it is known to be allowed", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out tcp 80 to b by user:ann");
    a.sendPacket(syn(a, b));
    network.run(20);
    expect(b.takeTunPackets()).toEqual([]);
    const [asked] = answer(network, a, ANN);
    expect(asked).toMatchObject({
      direction: "out",
      protocol: 6,
      localPort: 40_000,
      remotePort: 80,
      asksForPrograms: false,
    });
    expect(b.takeTunPackets()).toHaveLength(1);
    a.sendPacket(tcpPacket({ ...between(a, b), sourcePort: 40_000 }));
    network.run(20);
    expect(b.takeTunPackets()).toHaveLength(1);
    expect(questions(a)).toEqual([]);
    expect(a.engine.admission.list(network.now)[0]!.owner).toEqual(ANN);
  });

  it("refuses another's, and nobody's, as if there were no rule", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out tcp 80 to b by unit:a.service\nallow out udp to b by user:ann");
    for (const [packet, owner] of [
      [syn(a, b), BEN],
      [udp(a, b, 4000, 53), BEN],
      [udp(a, b, 4001, 53), undefined],
    ] as const) {
      a.sendPacket(packet);
      answer(network, a, owner);
      expect(b.takeTunPackets()).toEqual([]);
      expect(a.takeTunPackets().map(icmp)).toEqual([[1, 1]]);
    }
    expect(a.engine.drops().policy).toBe(3);
  });

  it("does not let whom it denies, and lets nobody through by silence", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "deny out any to b by user:ben\nallow out any to b");
    a.sendPacket(udp(a, b, 4000, 53));
    answer(network, a, BEN);
    expect(b.takeTunPackets()).toEqual([]);
    a.sendPacket(udp(a, b, 4001, 53));
    network.run(2_100); // no answer comes: nobody's
    expect(b.takeTunPackets()).toHaveLength(1);
    setPolicy(network, a, "allow out any to b by user:ann");
    a.takeTunPackets();
    a.sendPacket(udp(a, b, 4002, 53));
    network.run(2_100);
    expect(b.takeTunPackets()).toEqual([]);
    expect(a.takeTunPackets().map(icmp)).toEqual([[1, 1]]);
  });

  it("asks nothing where the answer would change nothing", () => {
    const { network, a, b } = friends();
    setPolicy(
      network,
      a,
      "allow out udp 53 to b\nallow out udp to b by user:ann\ndeny out icmp to b\nallow out any to b by user:ann",
    );
    a.sendPacket(udp(a, b, 4000, 53));
    a.sendPacket(echo(a, b, 128));
    network.run(20);
    expect(b.takeTunPackets()).toHaveLength(1);
    expect(questions(a)).toEqual([]);
    a.sendPacket(udp(a, b, 4000, 54));
    network.run(20);
    expect(questions(a)).toHaveLength(1);
  });

  it("holds for what peers begin: whose is the listener", () => {
    const { network, a, b } = friends();
    setPolicy(network, b, "allow in tcp 80 from a by unit:a.service");
    a.sendPacket(syn(a, b));
    network.run(20);
    expect(b.takeTunPackets()).toEqual([]);
    const [asked] = answer(network, b, ANN);
    expect(asked).toMatchObject({ direction: "in", localPort: 80, remotePort: 40_000, asksForPrograms: true });
    expect(b.takeTunPackets()).toHaveLength(1);
    a.sendPacket(tcpPacket({ ...between(a, b), flags: TCP.SYN, sourcePort: 40_001 }));
    network.run(20);
    answer(network, b, BEN);
    expect(b.takeTunPackets()).toEqual([]);
    expect(a.takeTunPackets()).toEqual([]); // peers are told nothing
  });

  it("keeps what was learned for flows that are judged again", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to b");
    for (const port of [1, 2]) a.sendPacket(udp(a, b, 4000 + port, 53));
    const [first] = a.engine.admission.list(network.now).filter((flow) => flow.localPort === 4001);
    a.command((engine) => engine.admission.noteOwner(first!, ANN));
    const cut = setPolicy(network, a, "allow out udp to b by group:ops");
    expect(cut.map((flow) => flow.localPort)).toEqual([4002]);
    a.sendPacket(udp(a, b, 4001, 53));
    network.run(20);
    expect(questions(a)).toEqual([]);
    expect(b.takeTunPackets()).toHaveLength(3);
  });

  it("bounds how many flows of one peer wait, and leaves room for others", () => {
    const { network, a, b } = friends();
    setPolicy(network, b, "allow in udp from a by user:ann\nallow out udp to a by user:ann");
    for (let port = 1; port <= 1_000; port++) a.sendPacket(udp(a, b, 4000, port));
    network.run(20);
    expect(questions(b).length).toBe(256);
    expect(b.engine.drops()["owner-queue-full"]).toBe(744);
    network.run(4_000);
    a.sendPacket(udp(a, b, 4000, 1_001));
    network.run(20);
    expect(answer(network, b, ANN)).toHaveLength(1);
    expect(b.takeTunPackets().length).toBe(1);
  });

  it("holds at most a few packets of a flow that waits", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to b by user:ann");
    for (let i = 0; i < 20; i++) a.sendPacket(udp(a, b, 4000, 53));
    expect(answer(network, a, ANN)).toHaveLength(1);
    expect(b.takeTunPackets()).toHaveLength(8);
    expect(a.engine.drops()["owner-queue-full"]).toBe(12);
  });
});
