# c
ARG TAG=latest

ARG REG
FROM ${REG}/a:${TAG} AS final
FROM final
