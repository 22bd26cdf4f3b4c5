FROM busybox
RUN <<EOF
EOF
COPY <<A <<B /x/
A
B
RUN true
