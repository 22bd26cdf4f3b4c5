FROM busybox
RUN [ \
  "a", \
  # c
  "b" \
]
CMD [ "sh", "-c", \
"x" ]
