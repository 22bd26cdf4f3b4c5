FROM busybox
ENV a=b c="d e" f='g h' i=j\ k l="" m=
ENV old way of it
ENV old  two   blanks
ENV "quoted key"=x
ENV a=$b c=${d:-e}f g="h ${i} j"
ENV a='it"s' b="it's"
ENV a=b=c d==
ENV a="multi \
  line" b=c
ENV x \
  y
LABEL a b
LABEL a.b=c "d e"="f g" \
  h=i
ENV a=b#c d=#e
