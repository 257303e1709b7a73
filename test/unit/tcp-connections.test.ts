import { expect, it } from "vitest";
import { parseTcpConnections } from "../../src/io/tcp-connections.ts";

const HEAD =
  "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const REST = "00000000:00000000 00:00000000 00000000     0        0 1509457 1 0000000006ed69f0 22 0 0 11 -1\n";
const OURS = "4C4950FD0000544F0000000001000000";
const THEIRS = "4C4950FD0000544F0000000002000000";

it("finds addresses and ports of connections in the kernel's list", () => {
  expect(parseTcpConnections(`${HEAD}   2: ${OURS}:9BF2 ${THEIRS}:1CE9 01 ${REST}`)).toEqual([
    {
      local: Uint8Array.from(Buffer.from("fd50494c4f5400000000000000000001", "hex")),
      remote: Uint8Array.from(Buffer.from("fd50494c4f5400000000000000000002", "hex")),
      localPort: 0x9bf2,
      remotePort: 0x1ce9,
    },
  ]);
});

it("leaves out what listens, begins, or waits for the end of time, and lines that make no sense", () => {
  const inState = (state: string) => `   2: ${OURS}:0050 ${THEIRS}:1CE9 ${state} ${REST}`;
  const all = ["01", "02", "03", "04", "05", "06", "07", "08", "09", "0A", "0B", "0C"];
  const text = HEAD + all.map(inState).join("");
  expect(parseTcpConnections(text)).toHaveLength(6);
  expect(parseTcpConnections(`${HEAD}   2: ${OURS} ${THEIRS}:1CE9 01 ${REST}\n\nnonsense\n`)).toEqual([]);
  expect(parseTcpConnections("")).toEqual([]);
});
