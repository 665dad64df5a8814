# Two images. The service (the default target), small and without torch:
#   docker build --tag ghcr.io/preshuffle/preshuffle:0.1.0 .
#   (echo tokens:; preshuffle token ops --role admin) > tokens.yaml
#   docker run -p 8080:8080 -v $PWD/tokens.yaml:/tokens.yaml:ro -e PRESHUFFLE_TOKENS=/tokens.yaml -v preshuffle:/data \
#     ghcr.io/preshuffle/preshuffle:0.1.0
# In its container the service listens on every address, so it does not start without tokens.
# The loader, on a ROCm image that brings torch and AMD's AITER:
#   docker build --target loader --build-arg ROCM_BASE=<your ROCm image> --tag ghcr.io/preshuffle/preshuffle-loader:0.1.0 .
# make pin-images writes the digest of its tag behind it, where its registry can be reached.
ARG PYTHON_IMAGE=docker.io/library/python:3.12.12-slim-bookworm
# The loader has no default base: from scratch its first step fails, and says so.
ARG ROCM_BASE=scratch

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
# Whatever pip installs in an image is in a lock with hashes (make lock), in the versions of constraints.txt.
COPY requirements requirements
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY preshuffle preshuffle
COPY registry registry
COPY layouts layouts
COPY api api
RUN python -m build --wheel --no-isolation --outdir /dist

FROM ${ROCM_BASE} AS loader
USER root
COPY --from=wheel /dist/*.whl /src/requirements/loader.txt /tmp/wheel/
# What torch and AITER are is the base image's business (AMD's AITER has to be there), and the digest of ROCM_BASE pins
# them: the wheel is installed without dependencies, and the lock holds only those that cannot pull torch.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
RUN python3 -c "import importlib.metadata as m; print('amd-aiter', m.version('amd-aiter'), 'torch', m.version('torch'))" \
 && python3 -m pip install --no-cache-dir --require-hashes -r /tmp/wheel/loader.txt \
 && python3 -m pip install --no-cache-dir --no-index --no-deps /tmp/wheel/*.whl \
 && rm -rf /tmp/wheel \
 && preshuffle --version \
 && preshuffle registry check \
 && useradd --uid 10001 --user-group --create-home --shell /bin/bash preshuffle
# The GPU's devices belong to the groups video and render: docker run --group-add video --group-add render …
USER 10001:10001
WORKDIR /home/preshuffle

FROM ${PYTHON_IMAGE} AS service
COPY --from=wheel /dist/*.whl /src/requirements/service.txt /tmp/wheel/
RUN pip install --no-cache-dir --require-hashes -r /tmp/wheel/service.txt \
 && pip install --no-cache-dir --no-index --no-deps /tmp/wheel/*.whl \
 && rm -rf /tmp/wheel \
 && preshuffle registry check \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin preshuffle \
 && install -d -o 10001 -g 10001 /data
ENV PRESHUFFLE_HOST=0.0.0.0 \
    PRESHUFFLE_PORT=8080 \
    PRESHUFFLE_DB=sqlite:////data/preshuffle.db \
    PYTHONUNBUFFERED=1
WORKDIR /data
VOLUME /data
EXPOSE 8080
USER 10001:10001
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s CMD ["python", "-c", \
  "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PRESHUFFLE_PORT'] + '/healthz', timeout=3)"]
ENTRYPOINT ["preshuffle"]
CMD ["serve"]
