# softclose as a container image.
#
# Node 26 is the current LTS line (until April 2029). "slim" and not "alpine": Node's own releases are built
# for glibc and tested on it; the musl builds are unofficial, with another allocator and another resolver.

FROM node:26-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY src ./src
# Only what runs is left over for the next stage: dist/, package.json and the packages it needs.
RUN npm run build && npm ci --omit=dev && rm -rf scripts src tsconfig*.json

FROM node:26-slim
WORKDIR /app
COPY --from=build /app ./
USER node
EXPOSE 8080
STOPSIGNAL SIGTERM
# The image has no curl. The admin listener's default address; adapt it if the configuration changes that.
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s CMD ["node", "-e", "fetch('http://127.0.0.1:9901/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Exec form: node is process 1 and gets SIGTERM itself, so that it can close every session before it exits.
ENTRYPOINT ["node", "dist/main.js"]
CMD ["run", "-c", "/etc/softclose/gateway.yaml"]
