import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    globalSetup: ["test/support/build.ts"],
    // Real sockets on two cores: more workers only add noise.
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: "own",
          include: ["test/unit/**/*.test.ts", "test/integration/**/*.test.ts"],
          testTimeout: 20_000,
          hookTimeout: 20_000,
        },
      },
      {
        // Software that others wrote: browsers, proxies, other stacks; and the network's own faults.
        extends: true,
        test: {
          name: "real",
          include: ["test/real/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
