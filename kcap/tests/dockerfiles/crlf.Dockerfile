FROM busybox
ENV a=b
RUN a \
  b
CMD ["x"]

# c
USER a
