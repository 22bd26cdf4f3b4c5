FROM --platform=linux/amd64 busybox AS x
RUN --mount=type=cache,target="/a b" --security=insecure x --not-a-flag
RUN --network=host -- --x
RUN --a="b c" --d='e f' --g\ h --
COPY --chown=a:b --link --chmod=755 --exclude=a --exclude=b a --b /c
ADD --keep-git-dir=true --link=false https://example.com/a.git /x
COPY	--from=x	a	b
HEALTHCHECK --retries=1   --timeout=2s NONE
HEALTHCHECK --interval=1s CMD   a  b
RUN - x
RUN --
RUN --only=flags
