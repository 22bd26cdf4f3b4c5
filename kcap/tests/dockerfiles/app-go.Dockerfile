#syntax=docker/dockerfile:1.7-labs
FROM --platform=$BUILDPLATFORM golang:1.22 AS build
ARG TARGETOS TARGETARCH
ARG VERSION="dev build" COMMIT
WORKDIR /src
RUN --mount=type=bind,source=go.mod,target=go.mod --mount=type=bind,source=go.sum,target=go.sum --mount=type=cache,target=/go/pkg/mod go mod download
RUN --mount=target=. --mount=type=cache,target=/root/.cache/go-build --network=none GOOS=$TARGETOS GOARCH=$TARGETARCH go build -ldflags "-X main.version=${VERSION:-none} -X 'main.commit=${COMMIT}'" -o /out/app ./cmd/app
FROM scratch AS bin
COPY --link --from=build /out/app /app
COPY --parents --exclude=*.md --exclude=*.txt ./a/b ./c/d /docs/
FROM gcr.io/distroless/static:nonroot
COPY --from=bin /app /
ENTRYPOINT ["/app"]
