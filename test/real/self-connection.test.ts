/**
 * Linux may give a connection the very port that it goes to, if nobody listens there: TCP then connects to
 * itself. Such a "backend" reads its own request, and a probe of it would call a dead one well.
 */
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { lacks, pathOf, program } from "../support/programs.ts";

/** So few that one of some hundred connections gets the port that it goes to. */
const PORTS = "40000 40003";
const DEAD_PORT = 40_002;
const ATTEMPTS = 2_000;

const root = { name: "root", found: () => process.getuid?.() === 0 };

describe.skipIf(lacks(root, program("unshare"), program("ip")))(
  "A port of the kernel's own range on which nobody listens",
  () => {
    it.each([
      ["dial", "refused"],
      ["probe", "bad"],
    ])("is what it is to each %s, also when TCP connects to itself: %s", (what, outcome) => {
      const script = `ip link set dev lo up && echo "${PORTS}" > /proc/sys/net/ipv4/ip_local_port_range && exec "$@"`;
      const dialler = [process.execPath, "test/real/support/dial-nobody.mjs", what];
      const args = ["--net", "sh", "-c", script, "sh", ...dialler, DEAD_PORT, ATTEMPTS].map(String);
      const output = execFileSync(pathOf("unshare"), args, { encoding: "utf8", timeout: 50_000 });
      expect(JSON.parse(output)).toEqual({ [outcome]: ATTEMPTS });
    });
  },
);
