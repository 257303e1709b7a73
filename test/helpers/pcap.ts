/** UDP payloads in a file that tcpdump wrote on an Ethernet interface; a run that was sent at once is one. */
export function datagramsOf(pcap: Buffer): Buffer[] {
  const datagrams: Buffer[] = [];
  for (let at = 24; at + 16 <= pcap.length; ) {
    const length = pcap.readUInt32LE(at + 8);
    const frame = pcap.subarray(at + 16, at + 16 + length);
    at += 16 + length;
    const type = frame.readUInt16BE(12);
    if (type === 0x0800 && frame[23] === 17) datagrams.push(frame.subarray(14 + 20 + 8));
    if (type === 0x86dd && frame[20] === 17) datagrams.push(frame.subarray(14 + 40 + 8));
  }
  return datagrams;
}
