# syntax=docker/dockerfile:1
# One image with every program: static, on nothing but certificates. See docs/image.md, also for how the
# same is done without Docker.
ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-alpine AS build
WORKDIR /src
COPY . .
# The crates and what was compiled of them outlive a build in the cache; the programs are copied out of it.
# The target is named although it is this machine's, so that what runs while compiling is not made static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc --print host-tuple)" \
    && CARGO_INCREMENTAL=0 CARGO_PROFILE_RELEASE_STRIP=symbols \
       cargo build --release --locked --target "$target" --bins \
         --package millrace --package millrace-command --package millrace-projector \
         --package millrace-query --package millrace-controller \
    && mkdir -p /out/etc/ssl/certs \
    && for program in millrace millrace-command millrace-projector millrace-query millrace-controller; do \
         cp "target/$target/release/$program" /out/ || exit 1; \
       done \
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
# A role is an entry of its own: /millrace-command, -projector, -query, -controller.
ENTRYPOINT ["/millrace"]
CMD ["--help"]
