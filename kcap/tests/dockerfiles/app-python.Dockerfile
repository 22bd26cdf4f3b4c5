FROM python:3.12-slim AS base
SHELL ["/bin/bash", "-euxo", "pipefail", "-c"]
ENV PYTHONUNBUFFERED 1
ENV PATH /venv/bin:$PATH
RUN <<EOF
python -m venv /venv
pip install --no-cache-dir -r requirements.txt
useradd app
EOF
COPY <<-"EOT" /etc/app.conf
	# not a comment of the Dockerfile
	[app]
	key = $value
	EOT
RUN python3 <<'PY' && echo done > /ok
import os
os.chown("/etc/app.conf", 1, 1)
PY
CMD ["gunicorn", "-b", "0.0.0.0:8000", "app:app"]
