#!/bin/sh
# Pins every dependency with its hashes, for all platforms at once. Names no index.
# Pass --upgrade to move to newer releases.
set -eu
uv=$1
shift
compile() { "$uv" pip compile --universal --generate-hashes --no-header --no-annotate --quiet "$@"; }
extras="--extra nats --extra mqtt --extra pkcs11 --extra oidc"
# shellcheck disable=SC2086
compile pyproject.toml $extras -o requirements.txt "$@"
# shellcheck disable=SC2086
compile pyproject.toml $extras --group dev -c requirements.txt -o requirements-dev.txt "$@"
compile --group build -c requirements.txt -o requirements-build.txt "$@"
compile --group fuzz -o requirements-fuzz.txt "$@"
