/**
 * The data plane on the C shim: TUN device, UDP socket, sealing and opening, offloads. JavaScript owns the memory (two
 * arenas, two tables of rows) and hands it over once; each call here is one call of the shim for a whole batch.
 * Invariant: rows and arena bytes are valid until the next call that fills the same batch.
 *
 * A wake-up: `readTun` or `receiveAndOpen`, decide on the rows, `sealAndSend` or `writeTun`. Descriptors that still hold
 * something wake again, so a callback may stop after any number of batches. While `sendBlocked` is true what is sealed
 * waits in a bounded queue, and the caller should seal no more until `onUdpWritable`.
 */
import type { Endpoint } from "../base/endpoint.ts";
import { formatEndpoint } from "../base/endpoint.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { Batch, DataPlane, KeySpec, StagedPacket, VirtualRun } from "../tunnel/data-plane.ts";
import {
  COUNTER,
  COUNTER_COUNT,
  DROP,
  KEY_STAT_COUNT,
  MAX_KEY_SLOTS,
  MAX_ROWS,
  NONE,
  ROW_WORDS,
} from "../tunnel/data-plane.ts";
import { VNET_HEADER_BYTES, writeVnetHeader } from "../wire/vnet-header.ts";
import type { NativeShim, PlaneHandle } from "./native.ts";
import {
  checked,
  checkedValue,
  IN_ARENA_BYTES,
  nativeShim,
  OUT_ARENA_BYTES,
  SEALED_OVERHEAD_BYTES,
  STATUS,
  STATUS_WORDS,
  SystemError,
} from "./native.ts";

export interface WakeUps {
  /** The TUN has packets to read. */
  onTunReadable(): void;
  /** The socket has datagrams to receive. */
  onUdpReadable(): void;
  /** The socket was full and everything that waited has been sent: `sendBlocked` is false again. */
  onUdpWritable(): void;
}

export class NativeDataPlane implements DataPlane {
  readonly outbound: Batch;
  readonly inbound: Batch;
  readonly #counters = new Float64Array(COUNTER_COUNT);
  readonly keyStats = new Float64Array(MAX_KEY_SLOTS * KEY_STAT_COUNT);
  readonly #status = new Int32Array(STATUS_WORDS);
  readonly #shim: NativeShim;
  readonly #plane: PlaneHandle;
  readonly #run = new Uint8Array(VNET_HEADER_BYTES + MAX_PACKET_BYTES);
  #hasQueued = false;

  constructor() {
    this.#shim = nativeShim();
    this.outbound = newBatch(OUT_ARENA_BYTES);
    this.inbound = newBatch(IN_ARENA_BYTES);
    this.#plane = this.#shim.create(
      this.outbound.rows,
      this.outbound.arena,
      this.inbound.rows,
      this.inbound.arena,
      this.#counters,
      this.keyStats,
      this.#status,
    );
  }

  /** What the kernel counts is asked for when somebody looks. */
  get counters(): Float64Array {
    this.#shim.countOverflow(this.#plane);
    return this.#counters;
  }

  /** True while the socket is full: what is sealed now waits in a bounded queue. */
  get sendBlocked(): boolean {
    return this.#status[STATUS.SEND_BLOCKED] !== 0;
  }

  /** What the socket held, as the kernel counts it, when it last became full or had room again. */
  get unsentBytes(): number {
    return this.#status[STATUS.UNSENT]!;
  }

  /** From how many of these on the socket is full. */
  limitUnsent(bytes: number): void {
    checked(this.#shim.limitUnsent(this.#plane, bytes), "limit unsent bytes");
  }

  /** True when datagrams were received for which the last batch had no rows; they wake `onUdpReadable` again. */
  get receivePending(): boolean {
    return this.#status[STATUS.RECEIVE_LEFT] !== 0;
  }

  /** Packets that peers and this node sent each other so far, less the datagrams of whoever is no peer. */
  get movedPackets(): number {
    const opened = this.#counters[COUNTER.RX_PACKETS]!;
    const strange = this.#counters[COUNTER.RX_DATAGRAMS]! - opened;
    return opened + this.#counters[COUNTER.TX_PACKETS]! - strange;
  }

  /** The endpoint slot whose frame the kernel refused as too long since the last call; -1 for none. */
  takeTooLong(): number {
    const slot = this.#status[STATUS.TOO_LONG]! - 1;
    this.#status[STATUS.TOO_LONG] = 0;
    return slot;
  }

  /** True when the kernel takes runs of UDP packets through the TUN (Linux 6.2 and later). */
  get hasUdpSegmentation(): boolean {
    return this.#status[STATUS.HAS_USO] !== 0;
  }

  /** Creates or takes over the interface; returns its name, which the kernel chooses when `name` holds a `%d`. */
  openTun(name: string): string {
    if (!/^[^\s/:]{1,15}$/.test(name)) {
      throw new PilotError("bad_interface_name", `'${name}' is no interface name`, "Use 1 to 15 letters and digits.");
    }
    try {
      return checkedValue(this.#shim.openTun(this.#plane, name), "open tun");
    } catch (error) {
      throw tunError(name, error);
    }
  }

  /** Takes over the device of this name that an earlier process opened; false when `fd` is none or of another kind. */
  adoptTun(fd: number, name: string): boolean {
    return this.#shim.adoptTun(this.#plane, fd, name) === 0;
  }

  /** The device's descriptor, for whoever keeps it while no daemon runs. */
  get tunDescriptor(): number {
    return checked(this.#shim.tunDescriptor(this.#plane), "tun descriptor");
  }

  /** Binds the underlay socket; returns where, with the port the kernel chose when `endpoint.port` is 0. */
  openUdp(endpoint: Endpoint): Endpoint {
    try {
      const port = checked(this.#shim.openUdp(this.#plane, endpoint.address, endpoint.port), "bind udp");
      return { address: endpoint.address, port };
    } catch (error) {
      throw udpError(endpoint, error);
    }
  }

  /** Begins to call; after `openTun` and `openUdp`. Keeps the process alive until `close`. */
  startPolling(wakeUps: WakeUps): void {
    const result = this.#shim.startPolling(
      this.#plane,
      () => wakeUps.onTunReadable(),
      () => wakeUps.onUdpReadable(),
      () => wakeUps.onUdpWritable(),
    );
    checked(result, "poll");
  }

  /** None of the wake-ups is called after this. */
  stopPolling(): void {
    this.#shim.stopPolling(this.#plane);
  }

  /** Fills `outbound`; returns the number of rows, 0 when the TUN is empty. */
  readTun(): number {
    return checked(this.#shim.readTun(this.#plane), "read tun");
  }

  /** Fills `outbound` with packets that were read before; returns the number of rows. What has no room is lost. */
  putTunPackets(packets: readonly StagedPacket[]): number {
    const { rows, arena } = this.outbound;
    let offset = VNET_HEADER_BYTES;
    let count = 0;
    for (const packet of packets.slice(0, MAX_ROWS)) {
      const { bytes, gsoType, gsoSize, csumStart, csumOffset, headerLength } = packet;
      if (offset + bytes.length > arena.length) break;
      // As `readTun` leaves them, for those that go back to the interface.
      writeVnetHeader(packet, arena, offset - VNET_HEADER_BYTES);
      arena.set(bytes, offset);
      const words = [offset, bytes.length, gsoType, gsoSize, csumStart, csumOffset, headerLength, DROP, NONE];
      rows.set(words, count++ * ROW_WORDS);
      offset += bytes.length + VNET_HEADER_BYTES;
    }
    return count;
  }

  /** Seals and sends the first `count` rows of `outbound`, except those whose KEY_SLOT is DROP. */
  sealAndSend(count: number): void {
    this.#shim.sealAndSend(this.#plane, count);
  }

  /** Fills `inbound`; returns the number of rows, which may be 0 though datagrams came. */
  receiveAndOpen(): number {
    return checked(this.#shim.receiveAndOpen(this.#plane), "receive udp");
  }

  /** Writes those of the first `count` rows of `inbound` that are packets and whose VERDICT is ACCEPT. */
  writeTun(count: number): void {
    this.#shim.writeTun(this.#plane, count);
  }

  /** What `writeTun` would write for a row, virtio_net_hdr in front: a copy, of which the caller may keep nothing. */
  takeRun(row: number): Uint8Array {
    return this.#run.subarray(0, checked(this.#shim.takeRun(this.#plane, row, this.#run), "take run"));
  }

  /** Writes one packet with complete checksums; false (and counted) when the device refuses it. */
  writeTunPacket(packet: Uint8Array): boolean {
    return this.#shim.writeTunPacket(this.#plane, packet) === 0;
  }

  /** Sends one datagram as it is, in IP fragments only if it `mayBreak`; false (and counted) when there is no room for it. */
  sendDatagram(endpoint: Endpoint, datagram: Uint8Array, mayBreak = false): boolean {
    return this.#shim.sendDatagram(this.#plane, endpoint.address, endpoint.port, datagram, mayBreak) === 0;
  }

  installKey(slot: number, spec: KeySpec): void {
    const result = this.#shim.installKey(
      this.#plane,
      slot,
      spec.key,
      spec.sendPrefix,
      spec.firstCounter,
      spec.localNode,
      spec.peerNode,
      spec.sendHeader,
      spec.receiveHeader,
      spec.bindSender,
      spec.receive?.key ?? NO_BYTES,
      spec.receive?.prefix ?? NO_BYTES,
    );
    checked(result, "install key");
  }

  removeKey(slot: number): number {
    return this.#shim.removeKey(this.#plane, slot);
  }

  setEndpoint(slot: number, endpoint: Endpoint, prefix: Uint8Array): void {
    checked(this.#shim.setEndpoint(this.#plane, slot, endpoint.address, endpoint.port, prefix), "set endpoint");
  }

  bindKey(keySlot: number, endpointSlot: number): void {
    this.#shim.bindKey(this.#plane, keySlot, endpointSlot);
  }

  setRelay(endpoint: Endpoint | undefined): void {
    checked(this.#shim.setRelay(this.#plane, endpoint?.address ?? "", endpoint?.port ?? 0), "set relay");
  }

  source(index: number): Endpoint {
    return this.#shim.source(this.#plane, index);
  }

  seal(keySlot: number, virtualPacket: Uint8Array): Uint8Array {
    const frame = new Uint8Array(virtualPacket.length + SEALED_OVERHEAD_BYTES);
    checked(this.#shim.seal(this.#plane, keySlot, virtualPacket, frame), "seal");
    return frame;
  }

  queueVirtual(keySlot: number, endpointSlot: number, run: VirtualRun): void {
    this.#shim.queueVirtual(this.#plane, keySlot, endpointSlot, run.header, run.payload, run.segmentBytes);
    this.#hasQueued = true;
  }

  /** Sends what `queueVirtual` left; at the end of each wake-up. */
  flush(): void {
    if (!this.#hasQueued) return;
    this.#hasQueued = false;
    this.#shim.flush(this.#plane);
  }

  sendStaged(keySlot: number, endpointSlot: number, packet: StagedPacket): void {
    this.#shim.sendStaged(
      this.#plane,
      keySlot,
      endpointSlot,
      packet.bytes,
      packet.gsoType,
      packet.gsoSize,
      packet.csumStart,
      packet.csumOffset,
      packet.headerLength,
    );
  }

  /** Stops the wake-ups, closes device and socket, wipes the keys. May be called twice; nothing else may follow. */
  close(): void {
    this.#shim.close(this.#plane);
  }

  /** The plane inside the shim, for tests that put a pipe in the TUN's place or look at what would be sent. */
  get handle(): PlaneHandle {
    return this.#plane;
  }
}

/** The largest that an IPv6 length field can say, and some: what a run joins is never longer. */
const MAX_PACKET_BYTES = 65_536 + 40;

function newBatch(arenaBytes: number): Batch {
  return { rows: new Int32Array(MAX_ROWS * ROW_WORDS), arena: new Uint8Array(arenaBytes) };
}

function tunError(name: string, error: unknown): unknown {
  if (!(error instanceof SystemError)) return error;
  switch (error.code) {
    case "ENOENT":
    case "ENODEV":
    case "ENXIO":
      return new PilotError(
        "tun_missing",
        "/dev/net/tun does not exist",
        "Load the module with 'modprobe tun'; in a container, add the device with '--device /dev/net/tun'.",
        error,
      );
    case "EPERM":
    case "EACCES":
      return new PilotError(
        "not_privileged",
        `no permission to create the interface ${name}`,
        "Run as root or with the capability CAP_NET_ADMIN.",
        error,
      );
    case "EBUSY":
      return new PilotError(
        "tun_busy",
        `the interface ${name} is in use by another program`,
        "Stop the other program or choose another name with '--tun'.",
        error,
      );
    case "EINVAL":
      return new PilotError(
        "tun_unusable",
        `the kernel refuses to make ${name} a TUN device with offloads`,
        "Choose another name with '--tun'; Linux 4.18 or later is needed.",
        error,
      );
    default:
      return error;
  }
}

function udpError(endpoint: Endpoint, error: unknown): unknown {
  if (!(error instanceof SystemError)) return error;
  const where = formatEndpoint(endpoint);
  switch (error.code) {
    case "EADDRINUSE":
      return new PilotError(
        "port_taken",
        `UDP port ${endpoint.port} is taken on ${endpoint.address}`,
        `See who has it with 'ss -ulnp sport = :${endpoint.port}', or choose another with '--listen'.`,
        error,
      );
    case "EADDRNOTAVAIL":
      return new PilotError(
        "address_unavailable",
        `${endpoint.address} is no address of this machine`,
        "Use an address that 'ip address' shows, or [::] for all.",
        error,
      );
    case "EACCES":
    case "EPERM":
      return new PilotError(
        "not_privileged",
        `no permission to bind ${where}`,
        "Use a port from 1024 up, or run with CAP_NET_BIND_SERVICE.",
        error,
      );
    case "EINVAL":
      return new PilotError(
        "bad_address",
        `${where} is no address to listen on`,
        "Give an IP address and port.",
        error,
      );
    default:
      return error;
  }
}

const NO_BYTES = new Uint8Array(0);
