FROM busybox
RUN cat <<'EOF' > /x
USER $not_an_instruction
EOF
RUN cat > /y <<EOF && chmod 600 /y
FROM $expanded
EOF
RUN ( cat <<EOF )
in a word of its own
EOF
USER 1
