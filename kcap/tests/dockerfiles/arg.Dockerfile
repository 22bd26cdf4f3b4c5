ARG A
ARG B=c D="e f" G
ARG H=${A:-x}
FROM ${B}:${H}
ARG A
ARG I='j k' L=m\ n
