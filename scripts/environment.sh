# Sourced by run.sh and test.sh: makes .venv and installs walkback into it, once.
#
#   install_once . run         walkback
#   install_once '.[dev]' test walkback with what its tests need
#
# Python is $PYTHON, else the first suitable one on the path. The installation is repeated when
# pyproject.toml, constraints.txt or the place of this repository has changed. Messages go to stderr.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv
python=$venv/bin/python

say() {
    printf '%s\n' "== $*" >&2
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "Found no Python 3.11 or newer; install one, or name it: PYTHON=/path/to/python sh $0"
    return 1
}

make_venv() {
    base=$(find_python) || exit 1
    say "Making $venv with $("$base" --version)"
    "$base" -m venv --clear "$venv" >&2 || {
        say "Python could not make a virtual environment; on Debian and Ubuntu install python3-venv first."
        exit 1
    }
}

# Whether an installation of kind "$1" was made from what is here now.
is_installed() {
    [ "$(cat "$venv/installed-$1" 2>/dev/null)" = "$wanted" ] && "$python" -c '' 2>/dev/null
}

# The constraints stand in the same command as the requirement: they choose the build of torch.
install_once() {
    wanted=$(cd "$root" && { cat pyproject.toml constraints.txt; pwd; } | cksum)
    if is_installed "$2" || is_installed test; then
        return
    fi
    "$python" -c '' 2>/dev/null || make_venv
    say "Installing walkback with pinned versions (minutes at first, nothing after that)"
    (cd "$root" && "$python" -m pip install --disable-pip-version-check -c constraints.txt -e "$1") >&2 || {
        say "The installation failed; the message above says why (docs/troubleshooting.md may help)."
        exit 1
    }
    printf '%s\n' "$wanted" >"$venv/installed-$2"
}
