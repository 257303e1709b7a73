import { defineConfig } from "vitest/config";

/** Two projects: `pure` needs nothing; `lab` needs root, /dev/net/tun and namespaces, and runs one file at a time. */
export default defineConfig({
  test: {
    projects: [
      {
        test: { name: "pure", include: ["test/{unit,property,vectors,sim,native}/**/*.test.ts"], testTimeout: 60_000 },
      },
      {
        test: {
          name: "lab",
          include: ["test/lab/**/*.test.ts"],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
