# Kthena Runtime: what installs and compiles stays in the builder; the pod gets the environment alone.
#
#   docker build -t kthena/runtime .                      the sidecar (the last stage)
#   docker build -t kthena/demo-engine --target demo .    the engine of `make demo`, for deploy/compose.yaml

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# An environment of its own: the packages are called exporter, lora and storage, names that others may want too.
RUN python -m venv --without-pip /opt/kthena
WORKDIR /src
COPY requirements.lock ./
RUN pip --python /opt/kthena/bin/python install --no-cache-dir --no-compile \
        --only-binary :all: --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY exporter/ exporter/
COPY lora/ lora/
COPY storage/ storage/
# Unchecked bytecode is used as it lies there, whatever a builder or a registry does to the files' times.
RUN pip --python /opt/kthena/bin/python install --no-cache-dir --no-compile --no-deps . \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/kthena/lib

FROM python:${PYTHON_VERSION}-slim AS base
# The official image has no bytecode for the standard library, and a non-root user cannot write it: each start would
# compile it again, 0.6 s for the runtime's imports instead of 0.2 s. The installer goes.
RUN pip uninstall --yes --root-user-action ignore pip \
 && stdlib="$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && rm -rf "${stdlib}/ensurepip" \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x 'idlelib|pydoc_data|tkinter|turtledemo' "${stdlib}"
COPY --from=builder /opt/kthena /opt/kthena
ENV PATH=/opt/kthena/bin:${PATH} \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, because runAsNonRoot cannot judge a name.
USER 65532:65532

FROM base AS demo
WORKDIR /opt/demo
COPY simulators/ simulators/
EXPOSE 8000
ENTRYPOINT ["python", "-m", "simulators.engine"]
CMD ["--host", "0.0.0.0"]

FROM base AS runtime
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Kthena Runtime" \
      org.opencontainers.image.description="Sidecar of LLM inference engines: Prometheus metrics under one set of names, KV-cache events, LoRA adapters, models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY deploy/healthcheck.py /opt/kthena/libexec/healthcheck.py
EXPOSE 9000
# Kubernetes does not look at this: there the probes of deploy/sidecar.yaml ask the same question.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s --retries=3 \
    CMD ["/opt/kthena/bin/python", "-I", "-S", "/opt/kthena/libexec/healthcheck.py"]
ENTRYPOINT ["kthena-runtime"]
