FROM busybox
RUN cat <<E"O"F
a
EOF
RUN cat <<\EOF
b
EOF
RUN cat <<'a b'
c
a b
RUN cat <<"a'b"
d
a'b
RUN cat <<$X
e
$X
RUN cat <<${X}
f
${X}
