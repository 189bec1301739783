import { beforeEach, describe, expect, it } from "vitest";
import { Leg, type LegOwner } from "../../../src/session/leg.ts";
import { buildFrame } from "../../support/frames.ts";
import { FakeSocket, HIGH_WATER_MARK_BYTES } from "./fake-socket.ts";

let socket: FakeSocket;
let told: string[];
let nowMs: number;
const clock = { now: () => nowMs };

beforeEach(() => {
  socket = new FakeSocket();
  told = [];
  nowMs = 1_000;
});

function createLeg(side: "client" | "upstream" = "client"): Leg {
  const owner: LegOwner = {
    legRead: (_leg, chunk) => {
      told.push(`read ${chunk.length}`);
      return null;
    },
    legBlocked: () => void told.push("blocked"),
    legDrained: () => void told.push("drained"),
    legEnded: (_leg, detail) => void told.push(`ended: ${detail}`),
    legGone: () => void told.push("gone"),
  };
  return new Leg(side, socket, owner, HIGH_WATER_MARK_BYTES, clock);
}

const FRAME = buildFrame({ opcode: 2, payload: Buffer.alloc(40_000) });

describe("back-pressure", () => {
  it("tells once that too much waits, and once that it has been taken", () => {
    const leg = createLeg();
    socket.stuck = true;
    leg.write(FRAME);
    expect(told).toEqual([]);
    leg.write(FRAME);
    leg.write(FRAME);
    expect(told).toEqual(["blocked"]);
    expect(leg.blocked).toBe(true);
    socket.drain();
    expect(told).toEqual(["blocked", "drained"]);
    expect(leg.blocked).toBe(false);
  });

  it("says since when nothing has been taken, as seen from look to look", () => {
    const leg = createLeg();
    expect(leg.stalledSince(nowMs)).toBeNull();
    socket.stuck = true;
    leg.write(FRAME);
    leg.write(FRAME);
    nowMs = 5_000;
    expect(leg.stalledSince(nowMs)).toBe(1_000);
    socket.writableLength -= 1;
    nowMs = 9_000;
    expect(leg.stalledSince(nowMs)).toBe(9_000);
    nowMs = 12_000;
    expect(leg.stalledSince(nowMs)).toBe(9_000);
    socket.drain();
    expect(leg.stalledSince(nowMs)).toBeNull();
  });

  it("ignores a drain that follows no block", () => {
    createLeg();
    socket.emit("drain");
    expect(told).toEqual([]);
  });

  it("pauses and resumes its socket once each", () => {
    const leg = createLeg();
    leg.resume();
    leg.pause();
    leg.pause();
    expect([socket.paused, leg.paused]).toEqual([true, true]);
    leg.resume();
    expect([socket.paused, leg.paused]).toEqual([false, false]);
  });
});

describe("the closing handshake", () => {
  const close = { code: 1001, reason: "bye" };

  it("sends one Close and nothing after it", () => {
    const leg = createLeg();
    expect(leg.sendClose(close)).toBe(true);
    expect(leg.sendClose({ code: 1002, reason: "" })).toBe(false);
    leg.write(FRAME);
    leg.writeInTwo(FRAME, FRAME, null);
    expect(socket.log.frames).toHaveLength(1);
    expect(socket.log.closes).toEqual([close]);
    expect([leg.sentCode, leg.receivedCode, leg.state]).toEqual([1001, null, "closeSent"]);
  });

  it("ends TCP towards a client as soon as both Closes are exchanged, in either order", () => {
    const first = createLeg();
    first.sendClose(close);
    expect(socket.ended).toBe(false);
    first.closeReceived({ code: 1001, reason: "" });
    expect(socket.ended).toBe(true);

    socket = new FakeSocket();
    const second = createLeg();
    second.closeReceived({ code: 1000, reason: "" });
    expect(second.writable).toBe(true);
    expect(socket.ended).toBe(false);
    second.sendClose(close);
    expect(socket.ended).toBe(true);
    expect(second.state).toBe("closed");
  });

  it("leaves the end of TCP to the upstream, and masks what goes there", () => {
    const leg = createLeg("upstream");
    leg.sendClose(close);
    leg.closeReceived(close);
    expect([leg.state, socket.ended]).toEqual(["closed", false]);
    expect(socket.log.frames[0]?.mask).not.toBeNull();
  });

  it("sends no Close into a socket that can take none", () => {
    const leg = createLeg();
    socket.writable = false;
    expect(leg.sendClose(close)).toBe(false);
    expect(leg.sentCode).toBeNull();
  });
});

describe("what the socket tells", () => {
  it("goes to the owner: bytes, end, error, and at last its close", () => {
    const leg = createLeg();
    nowMs = 2_000;
    socket.receiver?.received(Buffer.alloc(3));
    expect(leg.lastReadAt).toBe(2_000);
    socket.emit("end");
    socket.emit("error", Object.assign(new Error("read"), { code: "ECONNRESET" }));
    socket.emit("close");
    expect(told).toEqual([
      "read 3",
      "ended: connection ended without a Close",
      "ended: ECONNRESET",
      "gone",
    ]);
    expect(leg.state).toBe("gone");
    expect(socket.receiver).toBeNull();
    leg.resume();
    expect(leg.paused).toBe(true);
  });
});
