/**
 * Preloaded into the gateway's process (`--import`, with `--expose-gc`): collects garbage when asked
 * over IPC, and says what is left: the heap without what only waits for the collector, so that a leak of
 * a few bytes per session is visible, and the sockets, listeners and timers. The gateway itself knows
 * nothing of it.
 */
const collect = globalThis.gc;

process.on("message", () => {
  collect?.();
  const resources: Record<string, number> = {};
  for (const name of process.getActiveResourcesInfo()) resources[name] = (resources[name] ?? 0) + 1;
  process.send?.({ kind: "collected", heapBytes: process.memoryUsage().heapUsed, resources });
});

// The channel must not keep a drained gateway alive.
process.channel?.unref();
process.on("disconnect", () => process.exit());
