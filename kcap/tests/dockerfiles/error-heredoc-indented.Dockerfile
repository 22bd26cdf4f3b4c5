FROM busybox
RUN <<EOF
	x
	EOF
