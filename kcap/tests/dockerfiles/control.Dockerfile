FROM busybox
RUN abc[31md
COPY ab /c
RUN ab
ENV a=
