# Escape = `
# syntax=docker/dockerfile:1
FROM a
RUN a `
 b
