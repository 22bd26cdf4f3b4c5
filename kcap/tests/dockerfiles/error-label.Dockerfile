FROM busybox
LABEL x
