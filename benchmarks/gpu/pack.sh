#!/bin/sh
# Pack what run.sh needs on a machine without a network; see pack.py, and docs/gpu.md.
#
#   WALKBACK_DATA=/path/to/mirror benchmarks/gpu/pack.sh
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=$here/../../.venv/bin/python
[ -x "$python" ] || python=python3
exec "${PYTHON:-$python}" "$here/pack.py" "$@"
