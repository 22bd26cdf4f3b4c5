FR\
OM busy\
box
RU\
# c
N true
\
USER x
