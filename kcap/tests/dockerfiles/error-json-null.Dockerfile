FROM busybox
ONBUILD CMD [null]
