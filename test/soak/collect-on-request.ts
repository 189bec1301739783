/**
 * Preloaded into the gateway's process (`--import`, with `--expose-gc`): collects garbage when asked
 * over IPC. The heap is then read without what only waits for the collector, and a leak of a few
 * bytes per session is visible. The gateway itself knows nothing of it.
 */
const collect = globalThis.gc;

process.on("message", () => {
  collect?.();
  process.send?.({ kind: "collected" });
});

// The channel must not keep a drained gateway alive.
process.channel?.unref();
process.on("disconnect", () => process.exit());
