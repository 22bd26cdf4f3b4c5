FROM busybox
RUN a \
b\
c   \   
  d \	
# comment
	# indented comment \

   
  e
RUN \
\
  x
RUN a \\
USER "\\"
COPY a \
     b \
     /c/
