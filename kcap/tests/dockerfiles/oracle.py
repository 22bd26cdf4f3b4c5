"""Writes beside each Dockerfile here what BuildKit's parser makes of it, as JSON.

Needs the package `dockerfile` of PyPI, which holds that parser:

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install dockerfile==3.4.0
    /tmp/oracle/bin/python kcap/tests/dockerfiles/oracle.py

It has BuildKit 0.12. Where a newer one differs (text after an array, blanks after `<<`, escapes in
flags under `# escape`), the cases stand in the parser's own tests and not here.
"""

import json
import pathlib

import dockerfile

for path in sorted(pathlib.Path(__file__).parent.glob("*.Dockerfile")):
    try:
        parsed = dockerfile.parse_file(str(path))
    except dockerfile.GoParseError as error:
        out = {"error": str(error)}
    else:
        out = {"commands": [c._asdict() for c in parsed]}
        for command in out["commands"]:
            command["heredocs"] = [h._asdict() for h in command["heredocs"]]
    text = json.dumps(out, indent=1, ensure_ascii=True)
    path.with_suffix(".json").write_text(text + "\n", encoding="ascii")
