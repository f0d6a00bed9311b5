#!/bin/sh
# Makes dist/edge-agent-<version>-<python>-<machine>.tar.gz: an installer with every package in it, for line PCs
# without a network that have the same Python and processor as this machine. There: tar xf, then deploy/install.sh
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes --target "$work/backend" -r deploy/build.lock
mkdir "$work/wheels"
PYTHONPATH=$work/backend pip wheel --no-deps --no-build-isolation --wheel-dir "$work/wheels" .
pip wheel --require-hashes --wheel-dir "$work/wheels" -r deploy/requirements.lock

version=$(basename "$work"/wheels/edge_agent-*.whl | cut -d - -f 2)
name=edge-agent-$version-$("$python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')-$(uname -m)
mkdir "$work/$name"
mv "$work/wheels" "$work/$name/wheels"
cp -R deploy systemd LICENSE CHANGELOG.md "$work/$name/"
mkdir -p dist
tar --owner=0 --group=0 --sort=name -C "$work" -czf "dist/$name.tar.gz" "$name"
echo "dist/$name.tar.gz"
