import type { Target } from "../target.ts";
export function gatewayTarget(): Target {
  return { seeds: [Buffer.from("a")], tokens: [], maxInputBytes: 100, check: () => {} };
}
