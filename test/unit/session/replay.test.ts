/** The pace at which a new upstream is told the start of the conversation. */
import { describe, expect, it } from "vitest";
import { Replay } from "../../../src/session/replay.ts";

function replayOf(texts: string[], options: { swallow?: number; whole?: number } = {}): Replay {
  const firsts = texts.map((text) => [Buffer.from(text)]);
  const { swallow = 0, whole = texts.length } = options;
  return new Replay({ firsts, wholeFirsts: whole }, swallow, 1_000);
}

function said(frames: readonly Buffer[]): string[] {
  return frames.map(String);
}

describe("A replay", () => {
  it("says everything at once where no answer is to be swallowed", () => {
    const replay = replayOf(["login", "subscribe"]);
    expect([said(replay.next()), replay.isOver]).toEqual([["login", "subscribe"], true]);
  });

  it("is over at once where there is nothing to say", () => {
    expect(replayOf([], { swallow: 2 }).isOver).toBe(true);
  });

  it("waits for the answer to a message before it says the next", () => {
    const replay = replayOf(["login", "subscribe", "join"], { swallow: 2 });
    expect(said(replay.next())).toEqual(["login"]);
    expect(said(replay.next())).toEqual([]);
    replay.answered();
    expect([said(replay.next()), replay.isOver]).toEqual([["subscribe"], false]);
    replay.answered();
    expect([said(replay.next()), replay.isOver]).toEqual([["join"], true]);
  });

  it("is not over before the last answer that is to be swallowed", () => {
    const replay = replayOf(["login"], { swallow: 1 });
    replay.next();
    expect(replay.isOver).toBe(false);
    replay.answered();
    expect([said(replay.next()), replay.isOver]).toEqual([[], true]);
  });

  it("expects no more answers than there are messages with their end", () => {
    const replay = replayOf(["login", "subs"], { swallow: 5, whole: 1 });
    replay.next();
    replay.answered();
    expect([said(replay.next()), replay.isOver]).toEqual([["subs"], true]);
  });

  it("takes more answers than messages as what they are: the upstream's first words", () => {
    const replay = replayOf(["login", "subscribe"], { swallow: 3 });
    replay.answered();
    replay.answered();
    replay.answered();
    expect([said(replay.next()), replay.isOver]).toEqual([["login", "subscribe"], true]);
  });

  it("says the rest without waiting", () => {
    const replay = replayOf(["login", "subscribe", "join"], { swallow: 2 });
    expect(said(replay.next())).toEqual(["login"]);
    expect(said(replay.rest())).toEqual(["subscribe", "join"]);
  });

  it("says what the client has added meanwhile, and waits for its answer like for any other", () => {
    const firsts = [[Buffer.from("login")], [Buffer.from("sub")]];
    const log = { firsts, wholeFirsts: 1 };
    const replay = new Replay(log, 2, 1_000);
    expect(said(replay.next())).toEqual(["login"]);
    firsts[1]?.push(Buffer.from("scribe"));
    firsts.push([Buffer.from("join")]);
    log.wholeFirsts = 3;
    replay.answered();
    expect([said(replay.next()), replay.isOver]).toEqual([["sub", "scribe"], false]);
    replay.answered();
    expect([said(replay.next()), replay.isOver]).toEqual([["join"], true]);
  });

  it("says the frames of a message together", () => {
    const firsts = [[Buffer.from("log"), Buffer.from("in")]];
    const replay = new Replay({ firsts, wholeFirsts: 1 }, 1, 1_000);
    expect(said(replay.next())).toEqual(["log", "in"]);
  });
});
