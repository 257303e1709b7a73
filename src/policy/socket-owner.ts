/**
 * Who stands behind the local socket of a flow. The user is that of the socket, the rest comes from the programs that hold
 * it: a socket can be held by several (a server and its workers, a service and the manager that opened it for it), and
 * belongs to each of them.
 */

export interface SocketOwner {
  readonly uid: number;
  /** Control group in which the socket was made: a path from the root, `/` in front. */
  readonly cgroup: string | undefined;
  /** Empty when only the user was asked for, or when none that holds it can be seen. */
  readonly programs: readonly LocalProgram[];
}

export interface LocalProgram {
  readonly pid: number;
  readonly name: string;
  /** Group numbers, supplementary ones included. */
  readonly groups: readonly number[];
  /** Control group: a path from the root, `/` in front. */
  readonly cgroup: string | undefined;
}

/** Of several programs that hold a socket the youngest: a worker, not who started it. */
export function workerOf(owner: SocketOwner): LocalProgram | undefined {
  return owner.programs.reduce<LocalProgram | undefined>(
    (a, b) => (a === undefined || b.pid > a.pid ? b : a),
    undefined,
  );
}

/** Which owners a rule speaks of. An owner that is not known is none of these. */
export type OwnerSelector =
  | { readonly kind: "user"; readonly uid: number }
  | { readonly kind: "group"; readonly gid: number }
  /** Of the system's service manager: `nginx.service`, `session-3.scope`, `user@1000.service`. */
  | { readonly kind: "unit"; readonly unit: string }
  /** This group and all below it. No `/` at the end, unless it is the root. */
  | { readonly kind: "cgroup"; readonly path: string };

export function selectsOwner(selector: OwnerSelector, owner: SocketOwner | undefined): boolean {
  if (owner === undefined) return false;
  switch (selector.kind) {
    case "user":
      return owner.uid === selector.uid;
    case "group":
      return owner.programs.some(({ groups }) => groups.includes(selector.gid));
    case "unit":
      return cgroupsOf(owner).some((cgroup) => unitOf(cgroup) === selector.unit);
    case "cgroup":
      return cgroupsOf(owner).some((cgroup) => ancestorsOf(cgroup).includes(selector.path));
  }
}

/** Where the socket was made and where it is held: a manager may have made it for a service. */
export function cgroupsOf({ cgroup, programs }: SocketOwner): (string | undefined)[] {
  return [cgroup, ...programs.map((program) => program.cgroup)];
}

/**
 * The unit that the system's manager put a control group's programs into: the first part of the path that is no slice.
 * Parts below are named by whom the unit belongs to, so a user cannot call himself `nginx.service` there.
 */
export function unitOf(cgroup: string | undefined): string | undefined {
  const first = cgroup?.split("/").find((part) => part !== "" && !part.endsWith(".slice"));
  return first !== undefined && UNIT.test(first) ? first : undefined;
}

/** The path itself, and every group that it lies in, up to the root. */
export function ancestorsOf(cgroup: string | undefined): string[] {
  if (cgroup === undefined) return [];
  const parts = cgroup.split("/").filter((part) => part !== "");
  return [...parts.map((_, index) => `/${parts.slice(0, parts.length - index).join("/")}`), "/"];
}

/** A unit that runs programs. */
export const UNIT = /^[\w:.@\\-]{1,240}\.(?:service|scope|socket|mount|swap)$/;
