#!/usr/bin/env bash
# flash-attn for this project's models alone, as a wheel: one width of heads, bf16, causal or not, one architecture. It
# compiles in minutes what takes an hour or two as a whole; what the build leaves out is refused by its functions.
#
#   bash launch/flash_attn.sh [--arch 90] [--width 64] [--sdist FILE] [--out DIR]
#
# --arch: the GPU's compute capability, 80, 90 (Hopper), 100 or 120. --width: the widest heads, 64 (every preset), 96 or
# 128. --sdist: the package's source, where nothing can be downloaded. --out: where the wheel is put (default: the
# repository). Asks for nvcc, and in the environment of $PYTHON (default: .venv's, where there is one) for torch,
# setuptools, wheel, packaging and ninja.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
arch=90 width=64 sdist="" out=$root
usage() { sed -n '2,10p' "$0" | cut -c3-; exit 2; }
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case $1 in
    --arch) arch=$2 ;;
    --width) width=$2 ;;
    --sdist) sdist=$(realpath "$2") ;;
    --out) out=$2 ;;
    *) usage ;;
  esac
  shift 2
done
case $width in 64 | 96 | 128) ;; *) usage ;; esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$root"
version=$(sed -n 's/^flash-attn==//p' requirements-gpu.txt)
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
case $PYTHON in /*) ;; */*) PYTHON=$PWD/$PYTHON ;; esac
command -v nvcc >/dev/null || { echo "flash_attn.sh: no nvcc here: install the CUDA toolkit of torch's version" >&2; exit 1; }
"$PYTHON" -c 'import torch, setuptools, wheel, packaging, ninja' ||
  { echo "flash_attn.sh: $PYTHON lacks what is named above: $PYTHON -m pip install setuptools wheel packaging ninja" >&2; exit 1; }
# nvcc itself tells where it lives: what is on the PATH can be a script that calls it.
CUDA_HOME=${CUDA_HOME:-$(nvcc --dryrun -E -x cu /dev/null 2>&1 | sed -n 's|^#$ _HERE_=\(.*\)/bin$|\1|p')}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -z "$sdist" ]; then
  "$PYTHON" -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: -d . "flash-attn==$version"
  sdist=$(ls flash_attn-*.tar.gz)
fi
tar xzf "$sdist"
cd flash_attn-*/

# The sources of other head widths and of fp16 are left out, the switches between them are decided, and what would have
# gone there is an error.
kernels=csrc/flash_attn
sed -i '/_sm80\.cu"/{/hdim'$width'_bf16/!d}' setup.py
for feature in DROPOUT ALIBI SOFTCAP LOCAL; do
  sed -i "s/# \"-DFLASHATTENTION_DISABLE_$feature\"/\"-DFLASHATTENTION_DISABLE_$feature\"/" setup.py
done
cat >>$kernels/src/static_switch.h <<SWITCHES
#undef FP16_SWITCH
#define FP16_SWITCH(COND, ...) [&] { using elem_type = cutlass::bfloat16_t; return __VA_ARGS__(); }()
#undef HEADDIM_SWITCH
#define HEADDIM_SWITCH(HEADDIM, ...) [&] { constexpr static int kHeadDim = $width; return __VA_ARGS__(); }()
SWITCHES
sed -i -e 's/q_dtype == torch::kFloat16 || q_dtype == torch::kBFloat16/q_dtype == torch::kBFloat16/' \
  -e 's/only support fp16 and bf16 data type/of this build supports bf16 alone/' \
  -e "s/\(head_size[_og]*\) <= 256/\1 <= $width/" -e "s/head dimension at most 256/head dimension at most $width in this build/" \
  $kernels/flash_api.cpp
found="$(grep -c '_sm80\.cu"' setup.py) $(grep -c "at most $width in" $kernels/flash_api.cpp) $(grep -c '^    "-DFLASH' setup.py)"
[ "$found" = "6 5 4" ] || { echo "flash_attn.sh: $sdist is not the source of $version that this was written for" >&2; exit 1; }

# Headers of CUDA's libraries, where pip has them and the toolkit is the compiler alone.
headers=$("$PYTHON" -c 'import pathlib, torch; print(*pathlib.Path(torch.__file__).parents[1].glob("nvidia/cu1*/include"), sep=":")')
export CUDA_HOME CPATH=$headers${CPATH:+:$CPATH} FLASH_ATTENTION_FORCE_BUILD=TRUE FLASH_ATTN_CUDA_ARCHS=$arch
export FLASH_ATTN_LOCAL_VERSION=bf16d${width}sm$arch NVCC_THREADS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)}
"$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation --no-cache-dir -w "$out" .
echo "$(ls "$out"/flash_attn-*.whl): built in $SECONDS s; install it with pip"
