/** What must hold of a gateway process's own account of a session, or of a refusal. */
import { expect } from "vitest";
import type { Cause } from "../../src/close/causes.ts";
import type { CloseCodes } from "../../src/session/record.ts";
import { eventually, LONG_MS } from "./eventually.ts";
import type { GatewayProcess } from "./gateway-process.ts";

export interface Account {
  readonly cause: Cause;
  /** What is left out may be either. */
  readonly client: Partial<CloseCodes>;
  readonly upstream: CloseCodes;
  /** Default: 1. */
  readonly dials?: number;
  /** Default: 0. */
  readonly resumes?: number;
  /** No session came about. Default: false. */
  readonly refused?: boolean;
}

/**
 * Waits for record number `index`; it, the metrics and the slots agree with `account`, and nothing of any
 * session is left. The route's name is `all`.
 */
export async function expectAccount(
  gateway: GatewayProcess,
  { dials = 1, resumes = 0, refused = false, ...rest }: Account,
  index = 0,
): Promise<Record<string, unknown>> {
  const record = await eventually(() => {
    const found = gateway.records[index];
    if (found === undefined) throw new Error(`${gateway.records.length} records`);
    return found;
  }, LONG_MS);
  expect(record).toMatchObject({ ...rest, dials, resumes });
  expect(record["refused"] ?? false).toBe(refused);
  const metric = refused ? "softclose_refusals_total" : "softclose_session_ends_total";
  const alike = gateway.records.filter(({ cause }) => cause === rest.cause).length;
  expect(await gateway.metric(`${metric}{route="all",cause="${rest.cause}"}`)).toBe(alike);
  await eventually(async () => {
    expect((await gateway.status()).sessions).toBe(0);
    const slots = await gateway.slots();
    expect(slots).toEqual(slots.map(() => 0));
  }, LONG_MS);
  expect(await gateway.metric('softclose_sessions_active{route="all"}')).toBe(0);
  return record;
}
