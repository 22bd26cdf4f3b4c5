# c
   # c with blanks before it
FROM busybox
#RUN x
RUN a # not a comment
 	# c
RUN # also none

#
USER x
