# syntax=docker/dockerfile:1
# One program of every role: static, on nothing but certificates. See docs/image.md, also for how the same
# is done without Docker.
ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-alpine AS build
WORKDIR /src
COPY . .
# The crates and what was compiled of them outlive a build in the cache; the program is copied out of it.
# The target is named although it is this machine's, so that what runs while compiling is not made static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc --print host-tuple)" \
    && CARGO_INCREMENTAL=0 cargo build --profile image --locked --target "$target" --package millrace --bin millrace \
    && mkdir -p /out/etc/ssl/certs \
    && cp "target/$target/image/millrace" /out/ \
    && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
    && echo 'millrace:x:65532:65532::/:/sbin/nologin' > /out/etc/passwd

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="millrace" \
      org.opencontainers.image.description="An event-sourced back office over NATS JetStream, PostgreSQL and DynamoDB" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/ /
USER 65532:65532
# 8080 public, 8090 internal (command), 9090 health and metrics
EXPOSE 8080 8090 9090
# A role: /millrace role command, projector, query or controller.
ENTRYPOINT ["/millrace"]
CMD ["--help"]
