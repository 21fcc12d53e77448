# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# The SQL was checked against the committed .sqlx: building needs no database.
ENV SQLX_OFFLINE=true
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --release --bin chat-worker \
    && cp target/release/chat-worker /usr/local/bin/chat-worker

FROM debian:bookworm-slim
# tini passes signals on to the worker and its tool servers and reaps what they leave behind.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --uid 10001 chat
COPY --from=build /usr/local/bin/chat-worker /usr/local/bin/chat-worker
USER 10001
WORKDIR /home/chat
ENV CHAT_HTTP_ADDR=0.0.0.0:9464
EXPOSE 9464
ENTRYPOINT ["tini", "-g", "--", "chat-worker"]
CMD ["run"]
