FROM debian:bookworm
LABEL org.opencontainers.image.title="A service" \
      org.opencontainers.image.description="It's a service" \
      "com.example.quoted key"='single quoted'
# Packages
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      # for downloads
      ca-certificates \
      curl \

      # for the service
      libcap2-bin \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 999 --home-dir /srv/app svc \
 && install -d -o svc -g svc -m 0750 /srv/app /var/log/svc
COPY --chown=999:999 --chmod=0640 ["config with space.yml", "/srv/app/"]
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/a.tar.gz /opt/
RUN setcap cap_net_bind_service=+ep /usr/bin/curl
VOLUME ["/srv/app/data", "/var/log/svc"]
VOLUME /a /b
STOPSIGNAL SIGQUIT
USER 999:999
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD exec /srv/app/run "$@"
