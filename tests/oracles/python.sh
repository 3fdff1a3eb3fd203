#!/bin/bash
# The test oracles in Python, in a folder of their own: peft reads our adapters, safetensors our files. Says nothing when
# they are there. tests/oracles/python.sh FOLDER; then UNSLOTH_TEST_PYTHON=FOLDER/bin/python
set -euo pipefail
wanted=$(dirname "$0")/requirements.txt
if [ -x "$1/bin/python" ] && cmp -s "$wanted" "$1/requirements.txt"; then exit; fi
python3 -m venv "$1"
"$1/bin/pip" install -q --disable-pip-version-check -r "$wanted"
cp "$wanted" "$1/requirements.txt"
