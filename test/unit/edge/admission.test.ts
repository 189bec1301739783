import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Admission, Ticket } from "../../../src/edge/admission.ts";
import { monotonicClock } from "../../../src/session/clock.ts";
import { aLimitedRoute } from "./routes.ts";

const listener = (name: string, maxConnections: number) => ({
  name,
  maxConnections,
  acceptRate: 0,
  bind: { host: "127.0.0.1", port: 0 },
  trustedProxies: [],
});

describe("Admission", () => {
  const free = aLimitedRoute("free", {});

  it("names the cap that is reached", () => {
    const admission = new Admission(monotonicClock);
    const perClient = aLimitedRoute("perClient", { maxConnectionsPerClient: 1 });
    const perRoute = aLimitedRoute("perRoute", { maxConnections: 1 });
    const open = listener("open", 0);
    expect(admission.admit(open, perClient, "192.0.2.1")).toBeInstanceOf(Ticket);
    expect(admission.admit(open, perClient, "192.0.2.1")).toBe("client");
    expect(admission.admit(open, perClient, "192.0.2.2")).toBeInstanceOf(Ticket);
    expect(admission.admit(open, perRoute, "192.0.2.1")).toBeInstanceOf(Ticket);
    expect(admission.admit(open, perRoute, "192.0.2.3")).toBe("route");
    expect(admission.admit(listener("small", 1), free, "192.0.2.1")).toBeInstanceOf(Ticket);
    expect(admission.admit(listener("small", 1), free, "192.0.2.1")).toBe("listener");
    expect(admission.places).toBe(4);
  });

  it("counts a client by route, and an IPv6 one by its /64", () => {
    const admission = new Admission(monotonicClock);
    const one = aLimitedRoute("one", { maxConnectionsPerClient: 1 });
    const two = aLimitedRoute("two", { maxConnectionsPerClient: 1 });
    const open = listener("open", 0);
    expect(admission.admit(open, one, "2001:db8::1")).toBeInstanceOf(Ticket);
    expect(admission.admit(open, one, "2001:db8::2")).toBe("client");
    expect(admission.admit(open, two, "2001:db8::2")).toBeInstanceOf(Ticket);
  });

  it("gives places back once, however often a ticket is released", () => {
    const admission = new Admission(monotonicClock);
    const first = admission.admit(listener("l", 2), free, "192.0.2.1");
    admission.admit(listener("l", 2), free, "192.0.2.1");
    if (!(first instanceof Ticket)) throw new Error("refused");
    first.release();
    first.release();
    expect(admission.places).toBe(1);
  });

  it("takes a turn of the listener's acceptRate only from those who get in", () => {
    const clock = { nowMs: 0, now: () => clock.nowMs };
    const admission = new Admission(clock);
    const slow = { ...listener("slow", 0), acceptRate: 2 };
    const one = aLimitedRoute("one", { maxConnections: 1 });
    expect(admission.admit(slow, one, "192.0.2.1")).toBeInstanceOf(Ticket);
    expect(admission.admit(slow, one, "192.0.2.1")).toBe("route");
    expect(admission.admit(slow, free, "192.0.2.1")).toBeInstanceOf(Ticket);
    expect(admission.admit(slow, free, "192.0.2.1")).toBe("acceptRate");
    expect(admission.admit({ ...listener("other", 0), acceptRate: 1 }, free, "::1")).toBeInstanceOf(
      Ticket,
    );
    expect(admission.places).toBe(3);
    clock.nowMs = 500;
    expect(admission.admit(slow, free, "192.0.2.1")).toBeInstanceOf(Ticket);
    expect(admission.admit(slow, free, "192.0.2.1")).toBe("acceptRate");
  });

  it("is exact under any order of coming and going", () => {
    const step = fc.record({ client: fc.integer({ min: 0, max: 3 }), leave: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const admission = new Admission(monotonicClock);
        const limits = { maxConnections: 5, maxConnectionsPerClient: 2 };
        const route = aLimitedRoute("r", limits);
        const outcomes: [unknown, unknown][] = [];
        const inside: { client: number; ticket: Ticket }[] = [];
        for (const { client, leave } of steps) {
          if (leave) {
            inside.shift()?.ticket.release();
          } else {
            const mine = inside.filter((other) => other.client === client).length;
            const expected = inside.length >= 5 ? "route" : mine >= 2 ? "client" : null;
            const result = admission.admit(listener("l", 0), route, `192.0.2.${client}`);
            if (result instanceof Ticket) inside.push({ client, ticket: result });
            outcomes.push([result instanceof Ticket ? null : result, expected]);
          }
          outcomes.push([admission.places, inside.length]);
        }
        for (const [actual, expected] of outcomes) expect(actual).toBe(expected);
      }),
    );
  });
});
