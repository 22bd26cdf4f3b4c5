FROM busybox
RUN echo a \
  # between
  && cat <<EOF \
  > /f
body \
not continued
EOF
RUN true \
 && cat <<E1 <<E2
1
E1
2
E2
