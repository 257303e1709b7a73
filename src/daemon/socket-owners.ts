/**
 * Finds out whose local sockets flows have: for the policy, before a flow may begin, and for people who look at flows.
 * The socket's user costs the kernel microseconds and is answered at once; the programs behind it are looked for in
 * rounds, one after the other, each for all sockets that were asked about by then.
 *
 * What is not certain is not known. A host that forwards IPv6 may send packets of other network namespaces under its own
 * address (masquerading): there a UDP socket counts only if it is connected to that very peer, because any other might
 * merely have the same port.
 */
import { readFileSync } from "node:fs";
import type { OwnerQuestion } from "../engine/owner-questions.ts";
import { now } from "../io/clock.ts";
import { ControlGroups } from "../io/control-groups.ts";
import { findSocket, type LocalSocket, type SocketPlace } from "../io/socket-diag.ts";
import { findHolders } from "../io/socket-holders.ts";
import type { Direction } from "../policy/rule.ts";
import type { LocalProgram, SocketOwner } from "../policy/socket-owner.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";

export interface SocketOwnersParts {
  /** Of the interface that packets come through. */
  readonly interfaceName: string;
  /** Whose program has this port in a namespace of its own; undefined: none. */
  guestAt(protocol: number, port: number): SocketOwner | undefined;
  answer(id: number, owner: SocketOwner | undefined): void;
}

/** Where a flow's local end is, and who began. */
export type FlowPlace = Omit<SocketPlace, "interfaceIndex"> & { readonly direction: Direction };

export class SocketOwners {
  readonly #parts: SocketOwnersParts;
  /** Key: inode. Bound: questions that wait and flows that somebody looks at; emptied by each round. */
  #wanted = new Map<number, ((programs: readonly LocalProgram[]) => void)[]>();
  #round: Promise<void> | undefined;
  readonly #groups = new ControlGroups();

  constructor(parts: SocketOwnersParts) {
    this.#parts = parts;
  }

  handleQuestion(question: OwnerQuestion): void {
    const guest = this.#parts.guestAt(question.protocol, question.localPort);
    if (guest !== undefined) return void Promise.resolve().then(() => this.#parts.answer(question.id, guest));
    const socket = this.#socketOf(question);
    const asks = socket !== undefined && question.asksForPrograms;
    // Not before the turn is over that asked: the engine is handing out its events.
    const found = asks ? this.#programsOf(socket.inode) : Promise.resolve([]);
    void found.then((programs) => this.#parts.answer(question.id, socket && this.#ownerOf(socket, programs)));
  }

  /** One for each place; undefined where nobody knows. Goes easy on everybody else: many places take many turns. */
  async find(places: readonly FlowPlace[]): Promise<(SocketOwner | undefined)[]> {
    const owners: Promise<SocketOwner | undefined>[] = [];
    for (const place of places) {
      if (owners.length % AT_ONCE === AT_ONCE - 1) await new Promise((resolve) => setImmediate(resolve));
      const guest = this.#parts.guestAt(place.protocol, place.localPort);
      const socket = guest === undefined ? this.#socketOf(place) : undefined;
      owners.push(
        socket === undefined
          ? Promise.resolve(guest)
          : this.#programsOf(socket.inode).then((programs) => this.#ownerOf(socket, programs)),
      );
    }
    return await Promise.all(owners);
  }

  /** Whether some program would get what a peer begins to send to this place. */
  hasListener(place: FlowPlace): boolean {
    const socket = this.#socketOf(place);
    return socket !== undefined && (place.protocol !== NEXT_HEADER.TCP || socket.isListening);
  }

  #socketOf(place: FlowPlace): LocalSocket | undefined {
    const socket = findSocket({ ...place, interfaceIndex: indexOf(this.#parts.interfaceName) });
    if (socket === undefined || place.direction === "in") return socket;
    // A listener has not sent what was sent from its port: whoever did is not here.
    if (socket.isListening) return undefined;
    const isSure = place.protocol === NEXT_HEADER.TCP || socket.isConnected || !isForwarding();
    return isSure ? socket : undefined;
  }

  #ownerOf({ uid, cgroup }: LocalSocket, programs: readonly LocalProgram[]): SocketOwner {
    return { uid, cgroup: cgroup === undefined ? undefined : this.#groups.pathOf(cgroup, now()), programs };
  }

  #programsOf(inode: number): Promise<readonly LocalProgram[]> {
    const { promise, resolve } = Promise.withResolvers<readonly LocalProgram[]>();
    const known = this.#wanted.get(inode);
    if (known === undefined) this.#wanted.set(inode, [resolve]);
    else known.push(resolve);
    this.#round ??= this.#look().finally(() => (this.#round = undefined));
    return promise;
  }

  async #look(): Promise<void> {
    await Promise.resolve(); // what is asked in one go is looked for in one round
    while (this.#wanted.size > 0) {
      const wanted = this.#wanted;
      this.#wanted = new Map();
      const holders = await findHolders(wanted.keys());
      for (const [inode, asked] of wanted) for (const resolve of asked) resolve(holders.get(inode) ?? []);
    }
  }
}

/** 0 when there is no such interface. */
function indexOf(name: string): number {
  return numberIn(`/sys/class/net/${name}/ifindex`);
}

function isForwarding(): boolean {
  return numberIn("/proc/sys/net/ipv6/conf/all/forwarding") !== 0;
}

function numberIn(file: string): number {
  try {
    return Number(readFileSync(file, "utf8"));
  } catch {
    return 0;
  }
}

const AT_ONCE = 256;
