FROM busybox
	RUN a
