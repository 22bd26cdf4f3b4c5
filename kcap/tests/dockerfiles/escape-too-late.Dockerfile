# a comment first
# escape=`
FROM busybox
RUN a \
 b `
