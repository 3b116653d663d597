# Operator and processor in one small image, run as a user without rights.
#   docker build -t localhost/streamagg:dev .       compiles them (the default target)
#   --target binaries                               takes ready binaries from the build context instead (e2e/image)
# The base images are arguments, so that a site can use its own mirrors or hardened bases of Debian 12.
ARG BUILDER=rust:1.95-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
# RocksDB's binding is generated with libclang; librdkafka links OpenSSL.
RUN apt-get update && apt-get install -y --no-install-recommends libclang-dev libssl-dev pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p streamagg-operator -p streamagg-processor && \
    mkdir /out && for binary in streamagg-operator streamagg-processor; do \
      objcopy --strip-debug target/release/$binary /out/$binary; done

FROM ${BASE} AS runtime
# A base that has the three already needs no package registry.
RUN dpkg -s libssl3 libstdc++6 ca-certificates >/dev/null 2>&1 || { \
      apt-get update && apt-get install -y --no-install-recommends libssl3 libstdc++6 ca-certificates && \
      rm -rf /var/lib/apt/lists/*; }
LABEL org.opencontainers.image.title=streamagg org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532

FROM runtime AS binaries
COPY streamagg-operator streamagg-processor /usr/local/bin/

FROM runtime
COPY --from=build /out/ /usr/local/bin/
