# sbcast in a container: one static binary and the certificate authorities.
#
#   docker build -t sbcast .
#   docker run --no-healthcheck -p 127.0.0.1:7001:7001 -v files:/data sbcast reader --insecure --sink dir:/data
#
# --insecure lets the daemon listen outside the container's own loopback. Here
# only this machine reaches the port; docs/install.md has more.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/sbcast . && \
    mkdir /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/sbcast /sbcast
# What readers store; a volume here belongs to the user that runs them.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
EXPOSE 7000 7001 7080
# For a broadcaster without TLS. A reader, or a daemon with certificates, needs
# one of its own, as in docker-compose.yml, or --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/sbcast", "status", "127.0.0.1:7000"]
ENTRYPOINT ["/sbcast"]
CMD ["--help"]
