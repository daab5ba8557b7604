#!/usr/bin/env bash
# Make .oracle-allocator: torch's own CUDA allocator, on a device that is not there. 530 MB are downloaded, of which 1 MB is kept.
#
# Needs g++ and the installed torch's headers. LIBC10_CUDA (a file) and CUDA_INCLUDE (a folder) are used where they are
# given, and nothing is downloaded then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

home=$PWD/.oracle-allocator
python=${PYTHON:-.venv/bin/python}
[[ ! -x $home/drive ]] || exit 0
mkdir -p "$home/include/c10/cuda/impl"
torch=$("$python" -c 'import torch; print(torch.__path__[0])')
version=$("$python" -c 'import torch; print(torch.__version__.partition("+")[0])')
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ -z ${LIBC10_CUDA:-} ]]; then
    # Three equals signs: the build with CUDA, not one with a local version.
    "$python" -m pip download --quiet --no-deps --dest "$scratch" "torch===$version"
    unzip -q -j "$scratch"/torch-*.whl torch/lib/libc10_cuda.so -d "$scratch"
    LIBC10_CUDA=$scratch/libc10_cuda.so
fi
if [[ -z ${CUDA_INCLUDE:-} ]]; then
    "$python" -m pip download --quiet --no-deps --dest "$scratch" 'nvidia-cuda-runtime<14' 'nvidia-cuda-crt<14'
    for wheel in "$scratch"/nvidia_cuda_*.whl; do unzip -q -o "$wheel" -d "$scratch"; done
    CUDA_INCLUDE=$scratch/nvidia/cu13/include
fi
cp "$LIBC10_CUDA" "$home/libc10_cuda.so"
# What the CPU build's headers lack.
echo '#pragma once' > "$home/include/c10/cuda/impl/cuda_cmake_macros.h"
echo 'libcudart.so.13 { global: *; };' > "$scratch/versions"
here=tests/oracle/allocator
g++ -std=c++20 -O1 -fPIC -shared -I"$CUDA_INCLUDE" $here/device.cpp -o "$home/libcudart.so.13" \
    -Wl,-soname,libcudart.so.13 -Wl,--version-script="$scratch/versions"
ln -sf libcudart.so.13 "$home/libnvidia-ml.so.1"
g++ -std=c++20 -O1 -I"$home/include" -I"$torch/include" -I"$CUDA_INCLUDE" $here/drive.cpp -o "$home/drive" \
    -Wl,--no-as-needed -L"$home" -l:libcudart.so.13 -l:libc10_cuda.so -L"$torch/lib" -lc10 \
    -Wl,-rpath,"$home:$torch/lib" -Wl,--allow-shlib-undefined
