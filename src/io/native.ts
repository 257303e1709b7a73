/**
 * The C shim as TypeScript sees it: the only importer of the compiled addon, with a type for each of its functions.
 * Invariant: what the shim reports as a number below zero (-errno) leaves this file as a thrown SystemError, nowhere else.
 * The addon is built by scripts/build-native and loaded on first use.
 */
import { closeSync } from "node:fs";
import { createRequire } from "node:module";
import { getSystemErrorMap } from "node:util";
import { PilotError } from "../base/pilot-error.ts";

/** A data plane inside the shim. */
export type PlaneHandle = object & { readonly brand: "plane" };

/** A relay socket inside the shim. */
export type RelayHandle = object & { readonly brand: "relay" };

/** What watches TCP sockets inside the shim. */
export type TcpHandle = object & { readonly brand: "tcp" };

/** What hears of changes of the host's network inside the shim. */
export type LinksHandle = object & { readonly brand: "links" };

/** A number below zero is -errno. */
type Result = number;

export interface NativeShim {
  create(
    outRows: Int32Array,
    outArena: Uint8Array,
    inRows: Int32Array,
    inArena: Uint8Array,
    counters: Float64Array,
    keyStats: Float64Array,
    status: Int32Array,
  ): PlaneHandle;
  close(plane: PlaneHandle): Result;
  /** The interface's name. */
  openTun(plane: PlaneHandle, name: string): string | Result;
  /** The device of this name as an earlier process opened it. */
  adoptTun(plane: PlaneHandle, fd: number, name: string): Result;
  /** -1 without a device. */
  tunDescriptor(plane: PlaneHandle): number;
  /** The port bound. */
  openUdp(plane: PlaneHandle, address: string, port: number): Result;
  startPolling(
    plane: PlaneHandle,
    onTunReadable: () => void,
    onUdpReadable: () => void,
    onUdpWritable: () => void,
  ): Result;
  stopPolling(plane: PlaneHandle): void;
  /** From how many bytes on the socket takes no more. */
  limitUnsent(plane: PlaneHandle, bytes: number): Result;
  /** Brings the counters of what the sockets had no room for up to date. */
  countOverflow(plane: PlaneHandle): void;
  /** Outbound rows filled. */
  readTun(plane: PlaneHandle): Result;
  sealAndSend(plane: PlaneHandle, count: number): void;
  /** Inbound rows filled. */
  receiveAndOpen(plane: PlaneHandle): Result;
  writeTun(plane: PlaneHandle, count: number): void;
  /** Bytes of what `writeTun` would write for a row, virtio_net_hdr in front. */
  takeRun(plane: PlaneHandle, row: number, into: Uint8Array): Result;
  writeTunPacket(plane: PlaneHandle, packet: Uint8Array): Result;
  sendDatagram(plane: PlaneHandle, address: string, port: number, datagram: Uint8Array, mayBreak: boolean): Result;
  installKey(
    plane: PlaneHandle,
    slot: number,
    key: Uint8Array,
    sendPrefix: Uint8Array,
    firstCounter: number,
    localNode: number,
    peerNode: number,
    sendHeader: Uint8Array,
    receiveHeader: Uint8Array,
    bindSender: boolean,
    receiveKey: Uint8Array,
    receivePrefix: Uint8Array,
  ): Result;
  /** The counter the next frame would have had. */
  removeKey(plane: PlaneHandle, slot: number): number;
  setEndpoint(plane: PlaneHandle, slot: number, address: string, port: number, prefix: Uint8Array): Result;
  bindKey(plane: PlaneHandle, keySlot: number, endpointSlot: number): Result;
  /** An empty address means no relay. */
  setRelay(plane: PlaneHandle, address: string, port: number): Result;
  source(plane: PlaneHandle, index: number): { address: string; port: number };
  /** `frame` is SEALED_OVERHEAD_BYTES longer than the packet. */
  seal(plane: PlaneHandle, keySlot: number, virtualPacket: Uint8Array, frame: Uint8Array): Result;
  queueVirtual(
    plane: PlaneHandle,
    keySlot: number,
    endpointSlot: number,
    header: Uint8Array,
    payload: Uint8Array,
    segmentBytes: number,
  ): void;
  flush(plane: PlaneHandle): void;
  sendStaged(
    plane: PlaneHandle,
    keySlot: number,
    endpointSlot: number,
    bytes: Uint8Array,
    gsoType: number,
    gsoSize: number,
    csumStart: number,
    csumOffset: number,
    headerLength: number,
  ): void;
  /** The locked descriptor. */
  lockFile(path: string): Result;
  /** A datagram to a unix socket, with a descriptor in it unless `fd` is -1. */
  unixSend(path: string, text: string, fd: number): Result;
  /** Process, user, group and further groups at the other end of a unix socket. */
  unixPeer(fd: number): number[] | Result;
  /** Sockets that hold as many ports, from `first` on, as `fds` has pairs of places. */
  reservePorts(interfaceName: string, first: number, fds: Int32Array): Result;
  /** For the whole process. */
  forbidDumps(): Result;
  /** Some milliseconds, once much was freed. */
  trimMemory(): Result;
  /** That this process may `prefer` threads, whoever it becomes. */
  allowPreferred(): Result;
  /** 1: nobody gave this thread a policy of scheduling of his own. */
  isOrdinary(): Result;
  /** This thread runs before ordinary programs, or as one of them. */
  prefer(preferred: boolean): Result;
  /** For this thread alone; `keep` as bits. */
  reducePrivileges(becomes: boolean, uid: number, gid: number, groups: Uint32Array, keep: number): Result;

  /** A descriptor that the program which this process becomes has too. */
  handOn(fd: number): Result;

  /** Calls whenever an interface, an address or an IPv4 route may have changed, once for many changes. */
  linksWatch(onChange: () => void): LinksHandle | Result;
  linksEnd(links: LinksHandle): void;

  // The relay of a beacon; `native-relay.ts` knows what the arrays hold.
  relayOpen(
    address: string,
    port: number,
    arena: Uint8Array,
    rows: Int32Array,
    nextSlots: Int32Array,
    onReady: () => void,
  ): RelayHandle | Result;
  relayPort(relay: RelayHandle): Result;
  /** Instructions of classic BPF that choose a datagram's socket. */
  relaySort(relay: RelayHandle, program: Uint8Array): Result;
  /** Rows filled + 65,536 × slots used. */
  relayReceive(relay: RelayHandle, group: number, slots: number): Result;
  /** Datagrams that the group's sockets had no room for. */
  relayOverflow(relay: RelayHandle, group: number): number;
  relaySend(relay: RelayHandle, rows: number): number;
  relayFailed(relay: RelayHandle): number;
  relayClose(relay: RelayHandle): void;

  /** One netlink message to the kernel (sock_diag(7)) and bytes of its answer. */
  sockDiag(request: Uint8Array, reply: Uint8Array): Result;
  /** Pairs of the place of an inode in `inodes`, which rise, and a process that holds the socket: how many there are. */
  socketHolders(inodes: Float64Array, pairs: Int32Array): Promise<Result>;

  /** 1 or 0; an error where this machine has no libsodium. */
  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Result;

  // TCP sockets by descriptor; `plain-tcp.ts` uses them.
  /** `rows`: TCP_ROWS of TCP_ROW_WORDS, filled by `tcpPoll`. */
  tcpOpen(rows: Int32Array, onReady: () => void): TcpHandle | Result;
  tcpEnd(tcp: TcpHandle): void;
  /** Begins to watch a connected, connecting or listening socket, or tells again what is so now. */
  tcpWatch(tcp: TcpHandle, fd: number): Result;
  /** Rows filled: a descriptor, and bits of TCP_READY that have come since the last call. */
  tcpPoll(tcp: TcpHandle): Result;
  /** A descriptor with a port that nobody on this host has. */
  tcpBind(address: string): Result;
  tcpListen(fd: number, backlog: number): Result;
  tcpPort(fd: number): Result;
  /** A descriptor; `peer` gets the far end's address and port, 18 bytes. */
  tcpAccept(fd: number, peer: Uint8Array): Result;
  tcpConnect(fd: number, address: Uint8Array, port: number): Result;
  tcpError(fd: number): Result;
  tcpRead(fd: number, into: Uint8Array): Result;
  tcpWrite(fd: number, bytes: Uint8Array): Result;
  tcpShutdown(fd: number): Result;
  tcpClose(fd: number, reset: boolean): Result;

  // The parts by themselves, and planes without device and socket: for tests.
  crc32(bytes: Uint8Array): number;
  checksum(bytes: Uint8Array): number;
  /** Makes `fd`, which must keep packet boundaries, stand in for a TUN device. */
  attachTun(plane: PlaneHandle, fd: number, hasUso: boolean): Result;
  /** Datagrams of `segmentBytes` (0: one datagram) that the next `receiveAndOpen` takes as received. */
  inject(plane: PlaneHandle, datagrams: Uint8Array, segmentBytes: number, address: string, port: number): Result;
  /** What a plane without a socket would have sent: the bytes of each run, followed by the size of its frames. */
  takeQueued(plane: PlaneHandle): (Uint8Array | number)[];
  /** Two connected descriptors that keep packet boundaries and do not block. */
  packetPair(): [number, number] | Result;
}

/** Arenas the shim counts on: outbound for at least one superpacket, inbound for 32 of the largest messages. */
export const OUT_ARENA_BYTES = 512 * 1024;
export const IN_ARENA_BYTES = 32 * (65536 + 1088);
/** Bytes of a sealed frame around its virtual packet. */
export const SEALED_OVERHEAD_BYTES = 36;
/** Words of the array in which the shim shows its state. */
export const STATUS = { SEND_BLOCKED: 0, HAS_USO: 1, RECEIVE_LEFT: 2, TOO_LONG: 3, UNSENT: 4 } as const;
export const STATUS_WORDS = 5;

/** What `tcpPoll` tells of a socket. GONE: the far end's end or a reset is there, perhaps behind what can be read. */
export const TCP_READY = { READABLE: 1, WRITABLE: 2, GONE: 4 } as const;
export const TCP_ROW_WORDS = 2;
export const TCP_ROWS = 256;

/** A system call that failed; `code` is the errno's name, as in Node's own errors. */
export class SystemError extends Error {
  readonly code: string;
  readonly syscall: string;
  readonly errno: number;

  constructor(errno: number, syscall: string) {
    const [code, text] = getSystemErrorMap().get(errno) ?? [`errno ${-errno}`, "unknown error"];
    super(`${syscall}: ${text} (${code})`);
    this.name = "SystemError";
    this.code = code;
    this.syscall = syscall;
    this.errno = errno;
  }
}

/** The result, unless it is -errno. */
export function checked(result: number, syscall: string): number {
  if (result < 0) throw new SystemError(result, syscall);
  return result;
}

/** The same for calls that answer with something else than a number. */
export function checkedValue<T>(result: T | number, syscall: string): T {
  if (typeof result === "number") throw new SystemError(result, syscall);
  return result;
}

export function nativeShim(): NativeShim {
  loaded ??= load();
  return loaded;
}

/** Undefined where it is not built: a rendezvous does without it what others can do, too. */
export function nativeShimIfBuilt(): NativeShim | undefined {
  try {
    return nativeShim();
  } catch (error) {
    if (error instanceof PilotError && error.code === "shim_missing") return undefined;
    throw error;
  }
}

/**
 * Takes the lock that `path` stands for, until the descriptor is closed or the process ends; undefined when another
 * process holds it.
 */
export function lockFile(path: string): number | undefined {
  const result = nativeShim().lockFile(path);
  try {
    return checked(result, "flock");
  } catch (error) {
    if (error instanceof SystemError && error.code === "EAGAIN") return undefined;
    throw error;
  }
}

/** Sends one datagram to the unix socket at `path` (`@` for an abstract name), with the descriptor `fd` if given. */
export function sendToUnixSocket(path: string, text: string, fd = -1): void {
  checked(nativeShim().unixSend(path, text, fd), "send to unix socket");
}

/** Who is at the other end of a connection, as the kernel saw it when the connection was made. */
export interface UnixPeer {
  readonly pid: number;
  readonly uid: number;
  /** All groups, the main one first. */
  readonly gids: readonly number[];
}

export function unixPeerOf(fd: number): UnixPeer {
  const [pid, uid, ...gids] = checkedValue(nativeShim().unixPeer(fd), "peer of unix socket");
  return { pid: pid!, uid: uid!, gids };
}

/**
 * Takes ports of an interface away from the programs of this host, for TCP and UDP; returns how to give them back, and
 * undefined when one of them is in use. Throws a SystemError for another reason.
 */
export function reservePorts(interfaceName: string, first: number, count: number): (() => void) | undefined {
  const fds = new Int32Array(2 * count);
  const result = nativeShim().reservePorts(interfaceName, first, fds);
  if (result < 0 && new SystemError(result, "bind").code === "EADDRINUSE") return undefined;
  checked(result, "bind");
  return () => {
    for (const fd of fds) closeSync(fd);
  };
}

/**
 * From now on no crash writes the memory of this process to a file, and nobody without CAP_SYS_PTRACE, also not another
 * program of the same user, may look into it or into what of /proc/PID is for its owner alone (prctl(2), PR_SET_DUMPABLE).
 */
export function forbidDumps(): void {
  checked(nativeShim().forbidDumps(), "prctl");
}

/**
 * Calls whenever something about interfaces, addresses or IPv4 routes of this host may have changed; returns how to end that, and
 * undefined where the kernel does not let this process know.
 */
export function watchLinks(changed: () => void): (() => void) | undefined {
  const handle = nativeShim().linksWatch(changed);
  return typeof handle === "number" ? undefined : () => nativeShim().linksEnd(handle);
}

let loaded: NativeShim | undefined;

/** Beside the compiled program, or in the build folder when the sources themselves are run. */
const ADDON_PATHS = ["../native/pilot-tun.node", "../../dist/native/pilot-tun.node"];

function load(): NativeShim {
  const require = createRequire(import.meta.url);
  let lastError: unknown;
  for (const path of ADDON_PATHS) {
    try {
      return require(path) as NativeShim;
    } catch (error) {
      lastError = error;
      if ((error as NodeJS.ErrnoException).code !== "MODULE_NOT_FOUND") break;
    }
  }
  throw new PilotError(
    "shim_missing",
    `the native shim cannot be loaded: ${lastError instanceof Error ? lastError.message.split("\n")[0] : lastError}`,
    "Build it with ./scripts/build-native.",
    lastError,
  );
}
