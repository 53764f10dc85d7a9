# Libroseg as a static binary on nothing else: `docker build -t libroseg .`; docs/containers.md has the rest.
# Each platform is built on a machine of its own kind: linux/amd64, linux/arm64.

FROM docker.io/library/rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates musl-tools \
 && rm -rf /var/lib/apt/lists/* \
 && rustup target add "$(uname -m)-unknown-linux-musl"
ENV CC_x86_64_unknown_linux_musl=musl-gcc CC_aarch64_unknown_linux_musl=musl-gcc
WORKDIR /build

# What is compiled of others, in a layer that stays as long as these two files do. Every target of Cargo.toml has to be there.
COPY Cargo.toml Cargo.lock ./
RUN sed -n 's/^path = "\(.*\)"$/\1/p' Cargo.toml | while read -r source; do \
      install -D /dev/null "$source" && echo 'fn main() {}' >"$source"; \
    done \
 && touch src/lib.rs \
 && cargo build --release --locked --target "$(uname -m)-unknown-linux-musl"

COPY libroseg.toml ./
COPY examples/configs examples/configs
COPY src src
# Files keep their times, which may be older than the layer above: cargo would take them for what it built there.
RUN touch src/lib.rs src/main.rs \
 && cargo build --release --locked --target "$(uname -m)-unknown-linux-musl" \
 && install -D --mode=755 "target/$(uname -m)-unknown-linux-musl/release/libroseg" /out/bin/libroseg \
 && install -D --mode=644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt \
 && install -D --mode=644 libroseg.toml /out/etc/libroseg/libroseg.toml \
 && mkdir /volume

FROM scratch
LABEL org.opencontainers.image.title="Libroseg" \
      org.opencontainers.image.description="A drop-in replacement for Segment: one binary and one text file" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out /
# A new volume takes its owner from here.
COPY --from=build --chown=65532:65532 /volume /data
# `data/queue`, where the queue is unless the file has another place, is then in the volume.
WORKDIR /
ENV PATH=/bin LIBROSEG_CONFIG=/etc/libroseg/libroseg.toml
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/bin/libroseg", "healthcheck"]
ENTRYPOINT ["/bin/libroseg"]
CMD ["serve"]
