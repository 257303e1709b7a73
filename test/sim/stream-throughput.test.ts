/**
 * Throughput under random loss against the model of Mathis, Semke, Mahdavi and Ott (1997): segment / RTT × sqrt(3 / 2p).
 * The model knows no timeouts, so the ratio falls where they dominate. Seeds are fixed and the clock is simulated: the
 * table moves only when the behaviour does.
 */
import { expect, it } from "vitest";
import { PERFECT_LINK, StreamNetwork } from "../helpers/stream-network.ts";

const SEGMENT_BYTES = 1152;
const DELAY_MS = 25;
const SECONDS = 120;

function throughput(loss: number, seed: number, seconds = SECONDS): number {
  const network = new StreamNetwork({ ...PERFECT_LINK, delayMs: DELAY_MS, loss }, seed);
  network.keepPackets = false;
  const chunk = new Uint8Array(1 << 20);
  network.b.table.listen(80, "accept");
  network.a.program = (event, now) => {
    const kind = event.kind === "stream" ? event.event.kind : event.kind;
    if (kind === "established" || kind === "writable") while (event.stream.write(chunk, now) > 0);
  };
  network.b.program = ({ stream }, now) => {
    while (stream.read(now) !== undefined);
  };
  const stream = network.a.table.dial(network.b.address, 80, network.now)!;
  network.runFor(seconds * 1_000);
  return stream.statistics!.acknowledgedBytes / seconds;
}

function mathis(loss: number): number {
  return (SEGMENT_BYTES / ((2 * DELAY_MS) / 1_000)) * Math.sqrt(1.5 / loss);
}

it("follows the model of Mathis within the limits of the model", () => {
  const table = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].map((loss) => {
    const mean = [21, 22, 23].reduce((sum, seed) => sum + throughput(loss, seed), 0) / 3;
    const kilobytes = (bytes: number) => String(Math.round(bytes / 1_000)).padStart(4);
    const ratio = (mean / mathis(loss)).toFixed(2);
    return `loss ${(loss * 100).toFixed(1).padStart(4)} %  model ${kilobytes(mathis(loss))} kB/s  ours ${kilobytes(mean)} kB/s  ratio ${ratio}`;
  });
  expect(table.join("\n")).toMatchInlineSnapshot(`
    "loss  0.2 %  model  631 kB/s  ours  650 kB/s  ratio 1.03
    loss  0.5 %  model  399 kB/s  ours  391 kB/s  ratio 0.98
    loss  1.0 %  model  282 kB/s  ours  275 kB/s  ratio 0.97
    loss  2.0 %  model  200 kB/s  ours  176 kB/s  ratio 0.88
    loss  5.0 %  model  126 kB/s  ours   95 kB/s  ratio 0.75
    loss 10.0 %  model   89 kB/s  ours   53 kB/s  ratio 0.59
    loss 20.0 %  model   63 kB/s  ours   14 kB/s  ratio 0.23"
  `);
});

it.each([
  ["the last segment of a burst", 1],
  ["its last three", 3],
  ["all of it", 5],
])("mends the loss of %s in a few round trips, not after a timeout", (_, lost) => {
  const network = new StreamNetwork({ ...PERFECT_LINK, delayMs: DELAY_MS }, 1);
  network.b.table.listen(80, "accept");
  network.b.program = ({ stream }, now) => {
    while (stream.read(now) !== undefined);
  };
  const stream = network.a.table.dial(network.b.address, 80, network.now)!;
  network.runFor(1_000);
  const burst = new Uint8Array(5 * SEGMENT_BYTES);
  const isAcknowledged = (bytes: number) => () => stream.statistics!.acknowledgedBytes === bytes;
  stream.write(burst, network.now);
  expect(network.run(isAcknowledged(burst.length), 1_000)).toBe(true);
  let sent = 0;
  network.filter = ({ from }) => from === "b" || ++sent <= 5 - lost || sent > 5;
  const startedAt = network.now;
  stream.write(burst, network.now);
  expect(network.run(isAcknowledged(2 * burst.length), 5_000)).toBe(true);
  expect(network.now - startedAt).toBeLessThan(6 * 2 * DELAY_MS);
  expect(stream.statistics!.timeouts).toBe(0);
});

it("without loss is bounded by the far side's window of 1,024 segments a round trip alone", () => {
  const most = (1_024 * SEGMENT_BYTES) / ((2 * DELAY_MS) / 1_000);
  const ours = throughput(0, 21, 10);
  expect(ours / most).toBeGreaterThan(0.85);
  expect(ours / most).toBeLessThanOrEqual(1);
});
