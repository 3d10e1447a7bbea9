# Controller and workers: Ray, torch with CUDA, and the built dashboard. Build from the repository's root:
#   docker build -f deploy/images/headway.Dockerfile -t headway:0.1.0 .

FROM node:22.21-bookworm-slim AS page
WORKDIR /web
COPY controller/dashboard/web/package.json controller/dashboard/web/package-lock.json controller/dashboard/web/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY controller/dashboard/web ./
RUN npm run build -- --outDir /static

FROM python:3.12-slim-bookworm AS wheel
# For the CPU operations in C; without a compiler the wheel is built without them.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY . .
COPY --from=page /static controller/dashboard/static
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
# Triton compiles its launchers with gcc; tini reaps the ranks that Ray leaves behind.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev tini \
    && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /wheels/headway-*.whl)[gpu]"
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin headway
USER 10001:10001
WORKDIR /home/headway
ENV PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# 8002: dashboard and probes. 8003: admin and control gRPC.
EXPOSE 8002 8003
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8002/ready', timeout=2)"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "headway.controller", "--host", "0.0.0.0", "--http-port", "8002", "--grpc-port", "8003"]
