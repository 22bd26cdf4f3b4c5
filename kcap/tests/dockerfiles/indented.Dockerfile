	 FROM busybox
   RUN a
 USER b
USER c
