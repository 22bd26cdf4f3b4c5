FROM busybox
EXPOSE 80 443/tcp	8000-8010/udp  $P
USER  a b  c 
WORKDIR  /a b/c
STOPSIGNAL  SIG TERM
MAINTAINER  Some One <a@example.com> # not a comment
COPY a  b	c   /d
VOLUME /a   /b
RUN echo   a   b	c  
CMD    a    b
