#!/bin/sh
# Run `walkback run` with the given options, after making the environment it needs.
#
#   sh scripts/run.sh
#   sh scripts/run.sh --data mnist --operator gaussian-conv
set -eu
. "$(dirname -- "$0")/environment.sh"

install_once . run
say "walkback run $*"
exec "$python" -m walkback run "$@"
