/** What the tests of a hop with an idle limit share, on whichever side of the gateway it stands. */
import { expect } from "vitest";
import { type LibraryClient, oneClose } from "../../support/clients.ts";
import type { TestGateway } from "../../support/gateway.ts";
import { expectOutcome } from "../../support/outcome.ts";
import type { EchoServer } from "./echo-server.ts";
import { echoed } from "./hop-setting.ts";

export const IDLE_TIMEOUT = "2s";
/** Twice that, and more than the first tick of a heartbeat can come early. */
export const IDLE_MS = 4_500;
export const IDLE_LIMIT_MS = 20_000;

export interface Ends {
  readonly backend: EchoServer;
  readonly gateway: TestGateway;
  readonly client: LibraryClient;
}

/** Its only session has been alive all the time, and ends in order. */
export async function expectUndisturbed({ backend, gateway, client }: Ends): Promise<void> {
  expect(gateway.records).toEqual([]);
  await echoed(client, "still here");
  expect(backend.connections).toBe(1);
  client.sendClose(1000, "done");
  expect(await client.ended()).toEqual(oneClose(1000, "done"));
  await expectOutcome(gateway, {
    cause: "clientClosed",
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: 1000 },
  });
}
