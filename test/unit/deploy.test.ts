// What the files for deployment promise: a drain that has the time it needs, probes that hit, no root.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { loadConfig } from "../../src/config/load.ts";

const ROOT = new URL("../../", import.meta.url);

function read(path: string): string {
  return readFileSync(new URL(path, ROOT), "utf8");
}

interface Container {
  restartPolicy?: string;
  args?: string[];
  ports: { name: string; containerPort: number }[];
  startupProbe?: Probe;
  livenessProbe?: Probe;
  readinessProbe?: Probe;
  lifecycle: { preStop: { sleep?: { seconds: number }; exec?: { command: string[] } } };
  resources?: unknown;
  securityContext?: unknown;
  volumeMounts?: { name: string; mountPath: string }[];
}

interface Probe {
  httpGet?: { path: string; port: string };
}

interface Manifest {
  kind: string;
  metadata: { name: string };
  data?: Record<string, string>;
  spec?: {
    ports?: { targetPort: string }[];
    selector?: Record<string, unknown>;
    template?: {
      metadata: { labels: Record<string, string> };
      spec: {
        terminationGracePeriodSeconds: number;
        initContainers: Container[];
        containers: Container[];
        volumes: { name: string; configMap: { name: string } }[];
      };
    };
  };
}

describe("deploy/kubernetes-sidecar.yaml", () => {
  const documents = parseAllDocuments(read("deploy/kubernetes-sidecar.yaml"));
  const manifests = documents.map((document): Manifest => document.toJS());
  const named = (kind: string) => manifests.find((manifest) => manifest.kind === kind);
  const pod = named("Deployment")?.spec?.template;
  const gateway = pod?.spec.initContainers[0];
  const server = pod?.spec.containers[0];
  const loaded = loadConfig(named("ConfigMap")?.data?.["gateway.yaml"] ?? "", {
    file: "gateway.yaml",
    env: { ADMIN_TOKEN: "secret" },
  });
  const config = "config" in loaded ? loaded.config : null;

  it("is YAML without errors or warnings", () => {
    expect(documents.flatMap(({ errors, warnings }) => [...errors, ...warnings])).toEqual([]);
    expect(manifests.map(({ kind }) => kind)).toEqual(["ConfigMap", "Deployment", "Service"]);
  });

  it("holds a configuration that `softclose check` accepts", () => {
    expect("errors" in loaded ? loaded.errors : []).toEqual([]);
  });

  it("runs the gateway as a native sidecar, with the configuration of the ConfigMap", () => {
    expect(gateway?.restartPolicy).toBe("Always");
    const file = gateway?.args?.at(-1);
    expect(gateway?.args).toEqual(["run", "-c", "/etc/softclose/gateway.yaml"]);
    expect(file?.startsWith(`${gateway?.volumeMounts?.[0]?.mountPath}/`)).toBe(true);
    expect(pod?.spec.volumes[0]).toEqual({
      name: gateway?.volumeMounts?.[0]?.name,
      configMap: { name: named("ConfigMap")?.metadata.name },
    });
  });

  it("keeps the server alive until the gateway has drained, and both until they are done", () => {
    const drain = ((config?.drain.delayMs ?? 0) + (config?.drain.timeoutMs ?? 0)) / 1000;
    expect(drain).toBeGreaterThan(0);
    const sleep = server?.lifecycle.preStop.sleep?.seconds ?? 0;
    expect(sleep).toBeGreaterThan(drain);
    expect(pod?.spec.terminationGracePeriodSeconds).toBeGreaterThan(sleep);
    // Kubernetes signals a sidecar only after the other containers have ended.
    expect(gateway?.lifecycle.preStop.exec?.command.at(-1)).toBe("process.kill(1, 'SIGTERM')");
  });

  it("probes the admin listener where the configuration binds it", () => {
    const admin = gateway?.ports.find(({ name }) => name === "admin");
    expect(config?.admin).toEqual({
      bind: { host: "0.0.0.0", port: admin?.containerPort },
      token: "secret",
    });
    expect(gateway?.startupProbe?.httpGet).toEqual({ path: "/healthz", port: "admin" });
    expect(gateway?.livenessProbe?.httpGet).toEqual({ path: "/healthz", port: "admin" });
    expect(gateway?.readinessProbe?.httpGet).toEqual({ path: "/readyz", port: "admin" });
  });

  it("sends clients to the gateway, and the gateway to the server", () => {
    const websocket = gateway?.ports.find(({ name }) => name === "websocket");
    expect(config?.listeners[0]?.bind).toEqual({
      host: "0.0.0.0",
      port: websocket?.containerPort,
    });
    expect(named("Service")?.spec?.ports?.map(({ targetPort }) => targetPort)).toEqual([
      "websocket",
    ]);
    expect(named("Service")?.spec?.selector).toEqual(pod?.metadata.labels);
    expect(named("Deployment")?.spec?.selector).toEqual({ matchLabels: pod?.metadata.labels });
    expect(config?.pools[0]?.backends[0]?.url).toBe(
      `ws://127.0.0.1:${server?.ports[0]?.containerPort}`,
    );
  });

  it("gives the gateway few rights and bounded memory", () => {
    expect(gateway?.securityContext).toMatchObject({
      runAsNonRoot: true,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
    });
    expect(gateway?.resources).toMatchObject({
      requests: { cpu: expect.any(String), memory: expect.any(String) },
      limits: { memory: expect.any(String) },
    });
  });
});

describe("deploy/softclose.service", () => {
  const settings = new Map(
    read("deploy/softclose.service")
      .split("\n")
      .filter((line) => /^[A-Za-z]+=/.test(line))
      .map((line): [string, string] => [
        line.slice(0, line.indexOf("=")),
        line.slice(line.indexOf("=") + 1),
      ]),
  );

  it("stops with SIGTERM and waits longer than the default drain", () => {
    expect(settings.get("KillSignal")).toBe("SIGTERM");
    expect(Number(settings.get("TimeoutStopSec"))).toBeGreaterThan(25);
  });

  it("allows enough descriptors and few rights, and starts the built program", () => {
    expect(Number(settings.get("LimitNOFILE"))).toBeGreaterThanOrEqual(65536);
    expect(settings.get("ExecStart")).toMatch(/ .*\/dist\/main\.js run -c \S+$/);
    expect(settings.get("DynamicUser")).toBe("yes");
    expect(settings.get("NoNewPrivileges")).toBe("yes");
    expect(settings.get("ProtectSystem")).toBe("strict");
    expect(settings.has("MemoryDenyWriteExecute")).toBe(false);
  });
});

describe("Dockerfile", () => {
  const lines = read("Dockerfile")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  const stages: string[][] = [];
  for (const line of lines) {
    if (line.startsWith("FROM ")) stages.push([]);
    stages.at(-1)?.push(line);
  }

  it("has two stages of fewer than 10 lines of instructions", () => {
    expect(stages).toHaveLength(2);
    for (const stage of stages) expect(stage.length).toBeLessThan(10);
    expect(lines.length).toBe(stages.flat().length);
    expect(lines.filter((line) => line.endsWith("\\"))).toEqual([]);
  });

  it("copies only what .dockerignore lets through", () => {
    const allowed = read(".dockerignore")
      .split("\n")
      .filter((line) => line.startsWith("!"))
      .map((line) => line.slice(1));
    const copied = (stages[0] ?? [])
      .filter((line) => line.startsWith("COPY "))
      .flatMap((line) => line.split(" ").slice(1, -1));
    expect(copied.toSorted()).toEqual(allowed.toSorted());
  });

  it("leaves only what runs, as a user who is not root", () => {
    expect(stages[0]?.at(-1)).toContain("npm run build && npm ci --omit=dev");
    expect(stages[1]).toContain("USER node");
  });

  it("lets SIGTERM reach the gateway, and asks its health by itself", () => {
    expect(stages[1]).toContain("STOPSIGNAL SIGTERM");
    expect(stages[1]).toContain('ENTRYPOINT ["node", "dist/main.js"]');
    expect(stages[1]?.find((line) => line.startsWith("HEALTHCHECK "))).toContain(
      "http://127.0.0.1:9901/healthz",
    );
  });
});
