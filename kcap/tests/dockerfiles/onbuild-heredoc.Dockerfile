FROM alpine
ONBUILD RUN <<EOF
echo later
USER nobody
EOF
ONBUILD COPY <<a <<-b /dst/
1
a
	2
	b
RUN true
