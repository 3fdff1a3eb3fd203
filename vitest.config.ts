import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*_test.ts"],
    exclude: ["**/node_modules/**", "tests/gpu/**"],
    pool: "forks",
    // Two cores: two files at a time; the heavy files use worker threads of their own.
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    reporters: ["default", "./tests/plain_reporter.ts"],
  },
});
