# The router alone: no torch, no Ray, no compiler. Build from the repository's root:
#   docker build -f deploy/images/router.Dockerfile -t headway-router:0.1.0 .

FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
COPY deploy/images/router-requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --requirement /tmp/requirements.txt
# Without its dependencies: those are the whole system's, torch and Ray among them.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/headway-*.whl
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin headway
USER 10001:10001
WORKDIR /home/headway
ENV PYTHONUNBUFFERED=1
# 8000: OpenAI-style HTTP and probes. 8001: gRPC.
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
# Needs --controller HOST:PORT besides, which only the deployment knows.
CMD ["python", "-m", "headway.router", "--host", "0.0.0.0", "--http-port", "8000", "--grpc-port", "8001"]
