/** What happens to backends, for the log and the metrics. */
import type { Logger } from "./log.ts";
import type { Metrics } from "./metrics.ts";

export class BackendWatch {
  readonly #metrics: () => Metrics;
  readonly #logger: Logger;

  /** `metrics`: asked for when something happens. */
  constructor(metrics: () => Metrics, logger: Logger) {
    this.#metrics = metrics;
    this.#logger = logger;
  }

  ejected(pool: string, backend: string, durationMs: number): void {
    this.#metrics().ejected(pool, backend);
    this.#logger.warn({ pool, backend, durationMs }, "backend ejected after failures");
  }

  returned(pool: string, backend: string): void {
    this.#logger.info({ pool, backend }, "backend back from ejection");
  }

  probed(pool: string, backend: string, isGood: boolean): void {
    this.#metrics().probed(pool, backend, isGood);
  }

  backendUp(pool: string, backend: string, detail: string): void {
    this.#logger.info({ pool, backend, probe: detail }, "backend is up");
  }

  backendDown(pool: string, backend: string, detail: string): void {
    this.#logger.warn({ pool, backend, probe: detail }, "backend is down");
  }

  lookupFailed(pool: string, host: string, detail: string): void {
    this.#logger.warn(
      { pool, host, detail },
      "looking a name up failed; its backends stay as they are",
    );
  }
}
