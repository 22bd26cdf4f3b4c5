FROM busybox
COPY <<a <<"b c" 3<<'d' /dst/
one
a
two
b c
three
d
RUN cat <<A - <<-B 1>&2
A2
 A
A
	x
	B
