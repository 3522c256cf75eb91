#!/bin/sh
# Tests, speed and training on this machine's GPU, from the folder that pack.sh made; see docs/gpu.md.
#
#   benchmarks/gpu/run.sh OUT [--minutes N] [--budget N] [--only tests,bench,train] [--tiny]
#
# Python is $PYTHON, else python3; the packed folder is $WALKBACK_PACKED, else build/gpu.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
started=$(date +%s)
work=$(mktemp -d "${TMPDIR:-/tmp}/walkback-gpu-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
packed=${WALKBACK_PACKED:-$here/../../build/gpu}
python=${PYTHON:-python3}
set -- --packed "$packed" --work "$work" --started "$started" "$@"
"$python" "$here/plan.py" --check "$@" # options are refused before anything is installed
"$python" "$here/install.py" "$packed" "$work/env"
unset PYTHONPATH # the environment knows what it named
"$work/env/bin/python" "$here/plan.py" "$@"
