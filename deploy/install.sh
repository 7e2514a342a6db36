#!/bin/sh
# Installs pinned requirements: deploy/install.sh PYTHON REQUIREMENTS.txt [PIP-OPTION ...]
# A package that comes as source is built with tools that are pinned too, not with what an index offers that day.
set -eu
python=$1
requirements=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
pip() { "$python" -m pip install --disable-pip-version-check --no-deps --require-hashes "$@"; }
pip -q "$@" -r "$root/requirements-build.txt"
pip "$@" --no-build-isolation -r "$requirements"
