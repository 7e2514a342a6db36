#!/bin/sh
# Makes the private virtual environment. Debian and Ubuntu ship Python without ensurepip unless
# python3-venv is installed; then the machine's own pip fills the environment instead.
set -eu
python=$1
venv=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "edge-agent needs Python 3.11 or newer; $("$python" --version) is too old. Try: make PYTHON=python3.12 run" >&2
    exit 1
}
if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    rm -rf "$venv"
    "$python" -m venv --without-pip "$venv"
    "$python" -m pip --python "$venv/bin/python" install --disable-pip-version-check -q pip || {
        rm -rf "$venv"
        echo "No pip found. On Debian or Ubuntu: apt-get install python3-venv (or python3-pip)" >&2
        exit 1
    }
fi
