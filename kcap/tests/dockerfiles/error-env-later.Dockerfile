FROM busybox
ENV a=b c d=e
