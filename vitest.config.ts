import { defineConfig } from "vitest/config";

/**
 * Three projects, one after the other; a file's folder says which it is of.
 *
 * `pure` needs nothing. The two others need root, /dev/net/tun and namespaces. Files of `lab` run two at a time: each has
 * hosts of its own, and most of its time it waits. Files of `lab-alone` run one at a time when all else has ended, for they
 * hold the daemon to what a second one beside them would spoil: a loss of nothing under a flood, cuts within 100 ms, wake-ups,
 * memory that does not grow.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: { name: "pure", include: ["test/{unit,property,vectors,sim,native}/**/*.test.ts"], testTimeout: 60_000 },
      },
      {
        test: { ...lab(), name: "lab", include: ["test/lab/**/*.test.ts"], maxWorkers: 2, sequence: { groupOrder: 1 } },
      },
      {
        test: {
          ...lab(),
          name: "lab-alone",
          include: ["test/lab-alone/**/*.test.ts"],
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});

function lab() {
  return { testTimeout: 120_000, hookTimeout: 120_000 };
}
