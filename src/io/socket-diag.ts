/**
 * Which local socket a flow has, and whose it is, asked of the kernel: sock_diag(7) for TCP and UDP, the list of ping
 * sockets for echoes. Only sockets of this daemon's own network namespace are found; a socket that no process has open
 * (one that is being closed, or that the kernel made) has no inode, and so no owner.
 */
import { readFileSync } from "node:fs";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import { type NativeShim, nativeShim } from "./native.ts";

export interface SocketPlace {
  /** Next-header number: TCP, UDP or ICMPv6. */
  readonly protocol: number;
  /** 16 bytes each. */
  readonly local: Uint8Array;
  readonly remote: Uint8Array;
  /** Of an echo its identifier. */
  readonly localPort: number;
  readonly remotePort: number;
  /** Index of the interface, for sockets that are bound to it. */
  readonly interfaceIndex: number;
}

export interface LocalSocket {
  readonly uid: number;
  readonly inode: number;
  /** Number of the control group that it was made in, of the unified hierarchy; undefined where the kernel does not say. */
  readonly cgroup: number | undefined;
  /** It takes connections and has none itself. */
  readonly isListening: boolean;
  /** It speaks with this remote address and port alone. */
  readonly isConnected: boolean;
}

/** Undefined when there is none, or nobody's. */
export function findSocket(place: SocketPlace, shim: NativeShim = nativeShim()): LocalSocket | undefined {
  switch (place.protocol) {
    case NEXT_HEADER.TCP:
    case NEXT_HEADER.UDP:
      return askKernel(place, shim);
    case NEXT_HEADER.ICMPV6:
      return findPingSocket(place.localPort);
    default:
      return undefined;
  }
}

/** struct nlmsghdr and struct inet_diag_req_v2 of linux/inet_diag.h, in the byte order of the machines that we run on. */
function askKernel(place: SocketPlace, shim: NativeShim): LocalSocket | undefined {
  const request = new Uint8Array(NLMSG_HEADER_BYTES + REQUEST_BYTES);
  const view = new DataView(request.buffer);
  view.setUint32(0, request.length, true);
  view.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
  view.setUint16(6, NLM_F_REQUEST, true);
  view.setUint8(16, AF_INET6);
  view.setUint8(17, place.protocol);
  view.setUint32(20, ALL_STATES, true);
  writeSocketId(request.subarray(24), place);
  const reply = new Uint8Array(REPLY_ROOM_BYTES);
  const length = shim.sockDiag(request, reply);
  return length < 0 ? undefined : parseReply(reply.subarray(0, length), place);
}

/** For UDP the kernel takes source and destination as those of a packet that comes in ("for historical reasons"). */
function writeSocketId(
  id: Uint8Array,
  { protocol, local, remote, localPort, remotePort, interfaceIndex }: SocketPlace,
) {
  const view = new DataView(id.buffer, id.byteOffset, id.byteLength);
  const isSwapped = protocol === NEXT_HEADER.UDP;
  view.setUint16(0, isSwapped ? remotePort : localPort);
  view.setUint16(2, isSwapped ? localPort : remotePort);
  id.set(isSwapped ? remote : local, 4);
  id.set(isSwapped ? local : remote, 20);
  view.setUint32(36, interfaceIndex, true);
  view.setUint32(40, NO_COOKIE, true);
  view.setUint32(44, NO_COOKIE, true);
}

/** struct inet_diag_msg; anything but a whole one for this very port is no answer. */
export function parseReply(reply: Uint8Array, place: SocketPlace): LocalSocket | undefined {
  if (reply.length < NLMSG_HEADER_BYTES + ANSWER_BYTES) return undefined;
  const view = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
  if (view.getUint16(4, true) !== SOCK_DIAG_BY_FAMILY) return undefined;
  const [sourcePort, destinationPort] = [view.getUint16(20), view.getUint16(22)];
  const uid = view.getUint32(80, true);
  const inode = view.getUint32(84, true);
  if (sourcePort !== place.localPort || inode === 0) return undefined;
  const remote = reply.subarray(40, 56);
  const isConnected = destinationPort === place.remotePort && place.remote.every((byte, i) => byte === remote[i]);
  return {
    uid,
    inode,
    cgroup: cgroupIn(reply),
    isConnected,
    isListening: place.protocol === NEXT_HEADER.TCP && view.getUint8(17) === TCP_LISTEN,
  };
}

/** INET_DIAG_CGROUP_ID among the attributes behind the answer (Linux 5.8). */
function cgroupIn(reply: Uint8Array): number | undefined {
  const view = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
  for (let at = NLMSG_HEADER_BYTES + ANSWER_BYTES; at + 4 <= reply.length; ) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > reply.length) return undefined;
    if (view.getUint16(at + 2, true) === CGROUP_ID && length >= 12) return Number(view.getBigUint64(at + 4, true));
    at += (length + 3) & ~3;
  }
  return undefined;
}

/** The kernel names ping sockets by their identifier (icmp6 in proc_net(5)); raw sockets see everybody's answers. */
function findPingSocket(identifier: number): LocalSocket | undefined {
  const pings = socketsIn("/proc/net/icmp6").filter((socket) => socket.port === identifier);
  const found =
    pings.length > 0 ? pings : socketsIn("/proc/net/raw6").filter(({ port }) => port === NEXT_HEADER.ICMPV6);
  const [only, another] = found;
  if (only === undefined || another !== undefined || only.inode === 0) return undefined;
  return { uid: only.uid, inode: only.inode, cgroup: undefined, isListening: false, isConnected: true };
}

interface ListedSocket {
  readonly port: number;
  readonly uid: number;
  readonly inode: number;
}

function socketsIn(file: string): ListedSocket[] {
  try {
    return parseSocketList(readFileSync(file, "utf8"));
  } catch {
    return []; // a kernel without IPv6 ping sockets
  }
}

/** `sl local_address remote_address st queues tr tm->when retrnsmt uid timeout inode …` */
export function parseSocketList(text: string): ListedSocket[] {
  return text
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields.length >= 10)
    .map((fields) => ({
      port: Number.parseInt(fields[1]!.split(":")[1] ?? "", 16),
      uid: Number(fields[7]),
      inode: Number(fields[9]),
    }));
}

const NLMSG_HEADER_BYTES = 16;
const REQUEST_BYTES = 56;
const ANSWER_BYTES = 72;
const REPLY_ROOM_BYTES = 4_096;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST = 1;
const AF_INET6 = 10;
const ALL_STATES = 0xffffffff;
const NO_COOKIE = 0xffffffff;
const TCP_LISTEN = 10;
const CGROUP_ID = 21;
