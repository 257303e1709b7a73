/**
 * Run inside a namespace by underlay.test.ts: `receive ADDRESS` counts what opens until it is ended; `send ADDRESS BYTES
 * SEGMENT` sends superpackets, pausing while the socket is full, and after each pause waits to be told that it may go on;
 * `break ADDRESS BYTES` sends single datagrams that may break and others that may not, in turn. All print one JSON line per report.
 */
import { NativeDataPlane } from "../../src/io/native-data-plane.ts";
import { COUNTER } from "../../src/tunnel/data-plane.ts";
import { ENDPOINT_SLOT, KEY_SLOT, keySpec } from "../helpers/data-plane-pair.ts";
import { bytesOf, superpacket, tcpPacket } from "../helpers/inner-packets.ts";

const [role, peer, total, segment] = process.argv.slice(2);
const PORTS = { receive: 4002, send: 4001 } as const;
const plane = new NativeDataPlane();

function report(extra: object): void {
  const { RX_PACKETS, RX_DATAGRAMS, TX_DATAGRAMS, SEND_FAILED, SEND_WAITS } = COUNTER;
  const [received, datagrams, sent, failed, waits] = [
    RX_PACKETS,
    RX_DATAGRAMS,
    TX_DATAGRAMS,
    SEND_FAILED,
    SEND_WAITS,
  ].map((counter) => plane.counters[counter]);
  console.log(JSON.stringify({ received, datagrams, sent, failed, waits, ...extra }));
}

if (role === "receive") {
  plane.openUdp({ address: "::", port: PORTS.receive });
  plane.installKey(KEY_SLOT, keySpec(2, 1));
  const onUdpReadable = () => {
    while (plane.receiveAndOpen() > 0);
    report({});
  };
  plane.startPolling({ onTunReadable: () => {}, onUdpWritable: () => {}, onUdpReadable });
  report({ ready: true });
} else if (role === "break") {
  plane.openUdp({ address: "::", port: PORTS.send });
  const datagram = new Uint8Array(Number(total)).fill(2);
  for (const mayBreak of [false, true, true, false, true]) {
    plane.sendDatagram({ address: peer!, port: PORTS.receive }, datagram, mayBreak);
  }
  report({ done: true });
  plane.close();
} else {
  plane.openUdp({ address: "::", port: PORTS.send });
  plane.installKey(KEY_SLOT, keySpec(1, 2));
  plane.setEndpoint(ENDPOINT_SLOT, { address: peer!, port: PORTS.receive }, new Uint8Array(0));
  const packet = superpacket(tcpPacket({ payload: bytesOf(13_000) }), Number(segment));
  let left = Math.ceil(Number(total) / 13_000);
  let resumed = 0;
  const sendMore = () => {
    while (left > 0 && !plane.sendBlocked) {
      plane.sendStaged(KEY_SLOT, ENDPOINT_SLOT, packet);
      left--;
    }
    if (left > 0 || plane.sendBlocked) return;
    report({ resumed, tooLong: plane.takeTooLong(), done: true });
    plane.close();
  };
  plane.startPolling({
    onTunReadable: () => {},
    onUdpReadable: () => {},
    onUdpWritable: () => {
      resumed++;
      sendMore();
    },
  });
  sendMore();
  // What else is sent meanwhile may find the socket writable first; the one who waits must hear of it all the same.
  const timer = setInterval(() => {
    if (left === 0) clearInterval(timer);
    else plane.sendDatagram({ address: peer!, port: PORTS.receive }, Uint8Array.of(2));
  }, 1);
}
