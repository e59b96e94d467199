# sbcast in a container: one static binary and the certificate authorities.
#
#   docker build -t sbcast .
#   docker run -p 7001:7001 -v files:/data sbcast reader --sink dir:/data
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
EXPOSE 7000 7001
# A broadcaster's port; docker-compose.yml says how to ask a reader.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/sbcast", "status", "127.0.0.1:7000"]
ENTRYPOINT ["/sbcast"]
CMD ["--help"]
