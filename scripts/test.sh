#!/bin/sh
# Run every check of the project, after making the environment it needs. Options go to pytest.
#
#   sh scripts/test.sh
#   sh scripts/test.sh -k bound
set -eu
. "$(dirname -- "$0")/environment.sh"

install_once '.[dev]' test
cd "$root"
# One thread a process: threads that wait for each other slow small networks down many times.
export OMP_NUM_THREADS=1
say "ruff check"
"$python" -m ruff check .
say "ruff format --check"
"$python" -m ruff format --check .
say "mypy"
"$python" -m mypy
say "pytest -n 2 $*"
exec "$python" -m pytest -n 2 "$@"
