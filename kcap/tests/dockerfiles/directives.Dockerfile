# syntax = docker/dockerfile:1
# ESCAPE=\
# unknown=x
# escape=`
FROM busybox
RUN a \
 b
