FROM busybox
RUN ["a", "b c", "\u00e9\n", "d\"e", ""]
RUN  [ "a" , "b" ]  
CMD []
ENTRYPOINT [ ]
CMD ['a', 'b']
RUN [ -f /x ] && echo y
RUN ["a", "b"
RUN ["a" "b"]
RUN {"a": 1}
COPY ["a b", "c", "/d e/"]
COPY [ab] c /d
ADD ["a"	,	"b"]
VOLUME ["/a b"]
HEALTHCHECK CMD ["curl", "-f", "x"]
HEALTHCHECK CMD [ a
SHELL ["/bin/sh", "-c"]
EXPOSE ["80"]
USER ["a"]
