FROM debian
RUN <<EOF
#!/usr/bin/env python3
print("hi")

# a comment in the script
EOF
RUN <<EOF /bin/bash -e
exit 0
EOF
