#!/bin/bash
# The test oracles in Python, in a folder of their own: peft reads our adapters, safetensors our files. Says nothing when
# they are there. tests/oracles/python.sh FOLDER; then UNSLOTH_TEST_PYTHON=FOLDER/bin/python
set -euo pipefail
here=$(dirname "$0") python=$1/bin/python
wanted=$(cat "$here/requirements.txt" "$here/without_cuda.py")
if [ -x "$python" ] && [ "$wanted" = "$(cat "$1/installed" 2>/dev/null)" ]; then exit; fi
if python3 -m pip --version >/dev/null 2>&1; then
  python3 -m venv --without-pip "$1" # a pip of its own takes longer to install than half of the packages
  pip=(python3 -m pip --python "$python")
else
  python3 -m venv "$1"
  pip=("$1/bin/pip")
fi
# Nothing is compiled before it is needed: of torch's, sympy's and transformers' files the tests import a tenth.
"${pip[@]}" install -q --disable-pip-version-check --no-deps --no-compile -r "$here/requirements.txt"
if [ "$(uname)" = Linux ]; then
  "$python" "$here/without_cuda.py" "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch/lib"
fi
echo "$wanted" >"$1/installed"
