/**
 * Who is on the other end of the control socket, for as long as his request is worked on: what the request leads to finds
 * him here, also after waiting, without every function on the way passing him on.
 */
import { AsyncLocalStorage } from "node:async_hooks";

export interface Caller {
  readonly pid: number;
  readonly uid: number;
  /** All groups, the main one first. */
  readonly gids: readonly number[];
  /** Of that user; null when the system does not say. */
  readonly user: string | null;
  /** Name of the program; null when it was gone already. */
  readonly program: string | null;
  /** Who logged in before becoming that user (sudo, su); null when nobody did. */
  readonly login: { readonly uid: number; readonly user: string | null } | null;
}

/** Works on his request; `find` is asked at most once, and only if somebody wants to know. */
export async function onBehalfOf<T>(find: () => Caller | undefined, work: () => Promise<T>): Promise<T> {
  const request: Request = { find, caller: undefined, isFound: false, isOver: false };
  try {
    return await requests.run(request, work);
  } finally {
    // Timers that were set meanwhile carry the request with them, but do nothing in his name.
    request.isOver = true;
  }
}

/** `act` as something that is done in nobody's name, whoever caused it to be done. */
export function inNobodysName<Args extends unknown[], T>(act: (...args: Args) => T): (...args: Args) => T {
  return (...args) => requests.run(undefined, () => act(...args));
}

/** Undefined outside of a request, and when the system does not tell. */
export function currentCaller(): Caller | undefined {
  const request = requests.getStore();
  if (request === undefined || request.isOver) return undefined;
  if (!request.isFound) request.caller = request.find();
  request.isFound = true;
  return request.caller;
}

interface Request {
  readonly find: () => Caller | undefined;
  caller: Caller | undefined;
  isFound: boolean;
  isOver: boolean;
}

const requests = new AsyncLocalStorage<Request | undefined>();
