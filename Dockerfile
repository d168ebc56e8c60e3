# syntax=docker/dockerfile:1
# The worker. `build` installs it, `train` can also make the example's model, `worker` is small, and runs as nobody in particular.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/millrace
ENV PATH=/opt/millrace/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY millrace millrace
COPY streams streams
COPY transforms transforms
COPY inference inference
COPY schemas schemas
RUN pip install -c constraints.txt .

FROM build AS train-build
RUN pip install -c constraints.txt '.[train]'

FROM python:3.12-slim AS base
# Compiled kernels are kept beside the image's other state, in a folder that the worker may write.
ENV PATH=/opt/millrace/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/var/cache/millrace
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent millrace \
    && install -d -o millrace -g millrace /var/cache/millrace /app /app/examples/card_fraud/models
WORKDIR /app
COPY --chown=millrace:millrace examples examples
USER millrace

FROM base AS train
COPY --from=train-build /opt/millrace /opt/millrace
CMD ["python", "examples/card_fraud/train.py"]

FROM base AS worker
COPY --from=build /opt/millrace /opt/millrace
# The pages have to be reachable from outside the container; its ports are published by whoever runs it.
ENV MILLRACE_HEALTH__HOST=0.0.0.0 MILLRACE_HEALTH__PORT=8080
EXPOSE 8080
# The first start compiles the kernels, hence the patience.
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['MILLRACE_HEALTH__PORT']}/readyz\", timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["millrace"]
CMD ["run", "examples/card_fraud/pipeline.py"]
