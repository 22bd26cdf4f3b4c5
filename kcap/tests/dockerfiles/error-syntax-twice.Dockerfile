# syntax=a
# SYNTAX=b
FROM busybox
