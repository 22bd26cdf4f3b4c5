FROM busybox
RUN <<EOF
echo a

EOF
RUN true \
  # c
  && false
USER x
