FROM busybox
RUN <<-EOF
		tabs
	 mixed
    EOF
	EOF
COPY <<EOF /a
	EOF
EOF 
EOF
