FROM busybox
USER a