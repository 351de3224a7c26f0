# syntax=docker/dockerfile:1
# Two images: `celery` (beat, Flower, metrics, gateway: no MLX) and `worker` (with MLX's CPU build). docker-compose.yml builds both.

FROM python:3.13-slim AS source
WORKDIR /src
# The lock is a constraint here, without its hashes: the tools for tests in it are not installed.
COPY requirements.lock ./
RUN sed -e '/--hash/d' -e 's/ \\$//' requirements.lock > constraints.txt \
    && python -m venv /opt/venv
COPY pyproject.toml setup.py celery_mlx_commands.py README.md LICENSE ./
COPY tasks tasks
COPY worker_config worker_config

FROM source AS celery-build
RUN /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[flower,web]'

FROM source AS worker-build
RUN /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[worker]'

FROM python:3.13-slim AS base
RUN useradd --uid 10001 --create-home celery
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /home/celery
ENTRYPOINT ["celery", "-A", "celery_mlx"]

FROM base AS celery
COPY --from=celery-build /opt/venv /opt/venv
COPY worker_config/flowerconfig.py ./
RUN install --directory --owner 10001 /files
ENV CELERY_MLX_GATEWAY_FILES=/files
USER 10001

FROM base AS worker
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libopenblas0-pthread \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner 10001 /cache
COPY --from=worker-build /opt/venv /opt/venv
ENV CELERY_MLX_CACHE=/cache/celery-mlx HF_HOME=/cache/huggingface
USER 10001
CMD ["worker"]
