# The image: one static file and nothing else. `docker build -t pin-sidecar:0.1.0 .`
#
# It builds with BuildKit and with the classic builder, which builds every stage before the one that is asked for, so
# nothing here is newer than the latter. A site with a registry of its own says --build-arg RUST_IMAGE=...; whoever has
# built the binary already, with tools/build-static, takes it as it is:
#   install -D "$(tools/build-static)" dist/pin-sidecar
#   docker build --target prebuilt --build-arg PREBUILT=dist/pin-sidecar .
ARG RUST_IMAGE=rust:1.95-bookworm

# What both ways have in common.
FROM scratch AS surroundings
# In numbers: Kubernetes' runAsNonRoot cannot know what a name means, and there is no /etc/passwd.
USER 65532:65532
ENV PIN_LISTEN_ADDR=[::]:9464
EXPOSE 9464
# Whether the process works. An outage of the gateway or of the model server is none of its business: a restart helps with
# neither.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/pin-sidecar", "healthcheck"]
ENTRYPOINT ["/pin-sidecar"]
ARG VERSION=0.1.0
ARG REVISION=unknown
# Not the time of the build, so that the same sources give the same image.
ARG CREATED=1970-01-01T00:00:00Z
# Addresses, from whoever publishes the image.
ARG SOURCE=
ARG DOCUMENTATION=
LABEL org.opencontainers.image.title="pin-sidecar" \
      org.opencontainers.image.description="The agent that runs beside a model server and serves its models to the PIN network" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.documentation="$DOCUMENTATION"

# Before the stages that compile, which the classic builder would run too. For the same reason the default is a file that
# there always is: a build without PREBUILT gets past this stage and leaves it aside.
FROM surroundings AS prebuilt
ARG PREBUILT=Cargo.lock
COPY $PREBUILT /pin-sidecar

# Everything but our own sources, in whose place stand empty ones: a layer that lasts until Cargo.lock changes.
FROM $RUST_IMAGE AS dependencies
WORKDIR /pin-sidecar
COPY Cargo.toml Cargo.lock ./
COPY devnet/Cargo.toml devnet/
COPY sim/Cargo.toml sim/
COPY xtask/Cargo.toml xtask/
COPY tools/build-static tools/
# Set by BuildKit; unset it means this machine's own.
ARG TARGETARCH
# Cargo goes by time, and sources may well be older than this layer: so it must forget that it has built them.
RUN mkdir -p src devnet/src sim/src xtask/src \
 && touch src/lib.rs devnet/src/lib.rs sim/src/lib.rs xtask/src/lib.rs \
 && echo 'fn main() {}' >src/main.rs \
 && tools/build-static \
 && rm -r target/*/release/.fingerprint/pin-sidecar-*

FROM dependencies AS build
ARG TARGETARCH
ARG REVISION=unknown
COPY src src
RUN cp "$(PIN_SIDECAR_REVISION=$REVISION tools/build-static)" /built

FROM surroundings AS pin-sidecar
COPY --from=build /built /pin-sidecar
