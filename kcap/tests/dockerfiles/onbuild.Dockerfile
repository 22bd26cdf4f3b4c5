FROM alpine
ONBUILD COPY --chown=1:1 package.json /app/
ONBUILD RUN npm ci \
  && npm test
onbuild add ["a b", "/c/"]
ONBUILD ENV A=b C="d e"
ONBUILD WORKDIR /x
ONBUILD HEALTHCHECK --interval=5s CMD ["true"]
ONBUILD   USER   nobody
ONBUILD NOSUCH thing
