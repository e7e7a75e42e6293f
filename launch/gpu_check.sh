#!/usr/bin/env bash
# One look at a CUDA machine, in under 9 minutes: the bench of training, a 2-minute training, GPU tests, the kernels' bench.
#
#   bash launch/gpu_check.sh [--cpu] [--presets "base"] [--engine plain|deepspeed] [--data DIR] [--seconds 120] [--out DIR]
#                            [--wheels DIR]
#
# --cpu: a dry run of every stage on CPU, with the preset tiny and a short training: it proves this script, and no speed.
# --presets: presets for the bench; the training takes the first. --engine: of the training (the bench is always plain);
# where DeepSpeed is installed, ZeRO 1 has a short stage of its own. --data: battle files (default: the sample).
# --wheels: packages that the machine lacks and cannot fetch, made elsewhere by `pip download --no-deps
# --only-binary=:all: --python-version 3.12 --dest DIR msgspec lz4 datasets "dill<0.4.2" "multiprocess<0.70.20"`; they are
# taken for this run alone.
# All is left in one folder (--out, or $OUT, or ./gpu_check_out), at most 8 files with one preset; begin with summary.md.
# Exit status: 0 all stages passed, 1 a stage failed (the summary says which), 2 nothing could be run.
set -uo pipefail

cpu=no presets="" engine=plain data=data/sample seconds="" out=${OUT:-gpu_check_out} wheels=""
usage() { sed -n '2,14p' "$0" | cut -c3-; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --cpu) cpu=yes; shift; continue ;;
    --presets | --engine | --data | --seconds | --out | --wheels) [ $# -ge 2 ] || usage ;;
    *) usage ;;
  esac
  case $1 in
    --presets) presets=$2 ;;
    --engine) engine=$2 ;;
    --data) data=$(realpath -m -- "$2") ;;
    --seconds) seconds=$2 ;;
    --out) out=$2 ;;
    --wheels) wheels=$(realpath -m -- "$2") ;;
  esac
  shift 2
done
case $engine in plain | deepspeed) ;; *) usage ;; esac

readonly limit=530 # seconds for everything
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
log=$out/log.txt
summary=$out/summary.md
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
: >"$log"
export PYTHONUNBUFFERED=1 TURNWISE_CACHE=$scratch/index OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} HF_HUB_OFFLINE=1
if [ "$cpu" = yes ]; then
  presets=${presets:-tiny} seconds=${seconds:-20}
  export CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
else
  presets=${presets:-base} seconds=${seconds:-120}
fi
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi

say() { echo "$*" | tee -a "$log" >>"$summary"; echo "$*"; }
left() { echo $((limit - SECONDS)); }

# figures FILE: a training log's first and last row in the summary, and its speed with whatever is not a step.
figures() {
  "$PYTHON" - "$1" <<'PY' | while IFS= read -r line; do say "$line"; done
import csv
import sys

rows = list(csv.DictReader(open(sys.argv[1], newline="")))
for row in (rows[0], rows[-1]):
    names = [n for n in row if n in ("step", "loss/total", "policy/nll@0.999", "speed/battles_per_s", "speed/turns_per_s",
                                     "speed/mfu", "data/padding", "data/wait_share", "optim/skipped") and row[n]]
    print("  " + ", ".join(f"{n} {float(row[n]):.4g}" for n in names))
logged = [row for row in rows if row["speed/battles_per_s"]]
steps, hours = (float(logged[-1][name]) - float(logged[0][name]) for name in ("step", "time/hours"))
if steps:
    held = sum(float(row["checkpoint/held_s"] or 0) for row in logged)
    print(f"  all in all, rows, evaluations and checkpoints included: {3600 * hours / steps * 1e3:.1f} ms a step "
          f"(checkpoints held it up for {held:.2f} s)")
PY
}

failed=0
# stage NAME SECONDS COMMAND …: run within the seconds given and what is left of the limit; its output goes to the log.
stage() {
  local name=$1 most=$2 begun=$SECONDS status
  shift 2
  if [ "$most" -gt "$(left)" ]; then most=$(left); fi
  if [ "$most" -lt 5 ]; then
    say "- **$name**: NOT RUN, no time is left"
    failed=1
    return 1
  fi
  printf '\n===== %s\n$ %s\n' "$name" "$*" >>"$log"
  timeout --kill-after 10 "$most" "$@" >>"$log" 2>&1
  status=$?
  if [ $status -eq 0 ]; then
    say "- **$name**: passed, $((SECONDS - begun)) s"
  else
    tail -n 15 "$log" | sed 's/^/    /'
    say "- **$name**: FAILED, status $status$([ $status -eq 124 ] && echo " (over $most s)"), $((SECONDS - begun)) s; see log.txt"
    failed=1
  fi
  return $status
}

printf '# GPU check\n\n' >"$summary"
say "$(date -u '+%Y-%m-%d %H:%M UTC'), commit $("$PYTHON" -c 'from trainer.versions import git_commit; print(git_commit(short=True) or "unknown")' 2>/dev/null), presets: $presets$([ $cpu = yes ] && echo '; DRY RUN ON CPU: no figure here tells of a GPU')"

if [ -n "$wheels" ]; then
  if ! "$PYTHON" -m pip install -q --no-index --no-deps --target "$scratch/site" "$wheels"/*.whl >>"$log" 2>&1; then
    say "Nothing was run: the wheels of $wheels could not be unpacked; see log.txt"
    tail -n 5 "$log"
    exit 2
  fi
  export PYTHONPATH=$scratch/site${PYTHONPATH:+:$PYTHONPATH}
fi

# What is here, and what is missing.
"$PYTHON" - >"$scratch/report" 2>>"$log" <<'PY'
import importlib.util
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

needed = {"torch": "torch", "numpy": "numpy", "msgspec": "msgspec", "lz4": "lz4", "datasets": "datasets",
          "pyarrow": "pyarrow", "transformers": "transformers", "accelerate": "accelerate", "yaml": "PyYAML",
          "safetensors": "safetensors", "tqdm": "tqdm", "matplotlib": "matplotlib", "sklearn": "scikit-learn",
          "psutil": "psutil"}
optional = {"pytest": "pytest", "pytest_timeout": "pytest-timeout", "deepspeed": "deepspeed", "flash_attn": "flash-attn"}
missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
absent = [package for module, package in optional.items() if importlib.util.find_spec(module) is None]


def named(package):
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (version unknown)"


have = [p for p in (*needed.values(), *optional.values()) if p not in (*missing, *absent)]
print(f"Python {platform.python_version()}; " + ", ".join(named(package) for package in have))
print()
print("Missing, needed: " + (", ".join(missing) or "nothing"))
print("Missing, optional: " + (", ".join(absent) or "nothing"))
if missing:
    print("\nInstall them: python3 -m pip install -r requirements.txt, or give --wheels")
    sys.exit(3)
import torch

if torch.cuda.is_available():
    name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 2**30
    print(f"\nDevice: {name}, {memory:.0f} GiB; torch's CUDA {torch.version.cuda}")
else:
    print("\nDevice: no CUDA")
print(f"Shared memory: {shutil.disk_usage('/dev/shm').free / 2**20:.0f} MiB free")
from model.attention import available_implementations

print("Attention present: " + ", ".join(available_implementations("cuda" if torch.cuda.is_available() else "cpu")))
PY
status=$?
say ""
while IFS= read -r line; do say "$line"; done <"$scratch/report"
if [ $status -eq 3 ]; then
  say "Nothing was run: needed packages are missing."
  exit 2
elif [ $status -ne 0 ]; then
  say "Nothing was run: $PYTHON could not look around; see log.txt"
  tail -n 5 "$log"
  exit 2
fi
if [ $cpu = no ] && grep -q '^Device: no CUDA' "$scratch/report"; then
  say "Nothing was run: no CUDA device. \`bash launch/gpu_check.sh --cpu\` is a dry run of this script."
  exit 2
fi
has() { ! grep "^Missing, optional:" "$scratch/report" | cut -d: -f2 | tr -d " " | tr "," "\n" | grep -qx -- "$1"; }
say "Engine of the bench: plain PyTorch. Engine of the training: $engine."
say ""
[ $cpu = no ] && nvidia-smi >>"$log" 2>&1

# The data as a run on many battles has it: a token cache, made once.
cache=$data
if stage "token cache of $data" 60 "$PYTHON" -m data.prepare cache --from "$data" --out "$scratch/cache"; then cache=$scratch/cache; fi

# The bench first, for whose figure such a machine is lent, on the training's own battles, so that both have packs of one
# shape and compile once. It leaves bench_train.{json,md} and, on a GPU, the profiler's tables.
if [ $cpu = yes ]; then sizes=(--battles 4 --steps 2 --warmup 1 --workers 0); else sizes=(--steps 10 --warmup 3); fi
rm -f "$out/bench_train.json"
first=${presets%% *}
works=() # further settings for the first preset, where the usual ones fail
bench() { # NAME MODE PRESET SECONDS settings…
  local name=$1 mode=$2 preset=$3 most=$4
  shift 4
  stage "bench, $name" "$most" "$PYTHON" -m launch.bench_train --mode "$mode" --preset "$preset" --data "$cache" \
    "${sizes[@]}" --records "$out" --set data.heldout_share=0.1 "$@"
}
for preset in $presets; do
  # The default mode comes first of both: where the other fails or finds no time, its figure is there.
  if ! bench "$preset" both "$preset" 280 && ! grep -qs "\"bench_train, $preset," "$out/bench_train.json"; then
    simple=("compile=false" "model.attention=sdpa")
    if [ "$preset" = "$first" ]; then works=("${simple[@]}"); fi
    bench "$preset, uncompiled, by SDPA" default "$preset" 120 "${simple[@]}"
  fi
done
say ""
if [ -f "$out/bench_train.md" ]; then
  grep -aE '^\| (\||---|battles|turns|GFLOP|GPU busy|peak|\*\*)' "$out/bench_train.md" | while IFS= read -r line; do say "$line"; done
fi
say ""

# A real training, as long as the seconds allow by the bench's own figure.
if [ "$((seconds + 45))" -gt "$(left)" ]; then seconds=$(($(left) - 45)); fi
steps=$("$PYTHON" - "$out/bench_train.json" "$first" "$seconds" <<'PY' 2>>"$log"
import json
import sys

path, preset, seconds = sys.argv[1:]
entries = [e for e in json.load(open(path)).values() if e["name"].startswith(f"bench_train, {preset},")]
default = next(entry["default"] for entry in entries if "default" in entry)
# Start, compilation, checkpoint and evaluation take their part.
print(max(5, int((float(seconds) - min(default["warmup_s"], 60)) * 0.7 / default["loader_included"]["seconds"])))
PY
) || steps=50
common=("data.path=$cache" "output=$scratch/run" "model.preset=$first" "epochs=null" "max_steps=$steps" "eval.every=500"
  "data.heldout_share=0.1" "checkpoint.every=1000" "log.wandb=false" "log.progress=false" "resume=never"
  "optim.warmup_steps=$((steps / 10 + 1))" "objective.filter_warmup=$((steps / 2))" "${works[@]}")
if [ $cpu = yes ]; then
  common+=("batch.battles=2" "data.workers=0" "batch.accumulate=2" "precision=fp32" "compile=false")
fi
plain=("$PYTHON" -m trainer.train)
zero=("$PYTHON" -m accelerate.commands.launch --config_file launch/accelerate/1gpu.yaml -m trainer.train)
if [ "$engine" = deepspeed ]; then command=("${zero[@]}"); else command=("${plain[@]}"); fi
spare=$([ $cpu = yes ] && echo 240 || echo 60) # for the start, and for the end with its scores
stage "training, $first, $steps steps, $engine" $((seconds + spare)) "${command[@]}" --config launch/runs/h100_1gpu.yaml "${common[@]}"
if [ -f "$scratch/run/training_log.csv" ]; then
  cp "$scratch/run/training_log.csv" "$out"
  figures "$out/training_log.csv"
fi
# GPU tests, now that the figures are there. From the files that have some: others may want packages that are not here.
if has pytest; then
  mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
  stage "GPU tests" 150 "$PYTHON" -m pytest -m gpu -q -p no:cacheprovider "${files[@]}"
  say "  $(grep -aE '^[0-9]+ (passed|failed|skipped|deselected|error)' "$log" | tail -1)"
else
  say "- **GPU tests**: NOT RUN, pytest is missing"
  failed=1
fi

# Which of the kernels present is the fastest, and whether each is right: what `attention: auto` should take.
if [ "$(left)" -gt 30 ]; then
  stage "attention, $first" 90 "$PYTHON" -m launch.bench_attention --preset "$first" --data "$cache" \
    --battles "$([ $cpu = yes ] && echo 4 || echo 128)" --records "$scratch"
  if [ -f "$scratch/attention.json" ]; then
    cp "$scratch/attention.json" "$out"
    say ""
    grep -a '^|' "$scratch/attention.md" | while IFS= read -r line; do say "$line"; done
  fi
else
  say "- **attention, $first**: not run, $(left) s are left: \`$PYTHON -m launch.bench_attention --data $data\`"
fi
# With what time is left, the same bench by other settings: CUDA graphs tell whether the host or the GPU is what takes the
# time, packs of twice as many battles what the optimizer and short products cost. The profiles that are left are the first.
mkdir "$scratch/profiles" && cp "$out"/bench_train_profile_*.txt "$scratch/profiles" 2>/dev/null
for setting in cuda_graphs=true batch.battles=256; do
  if [ $cpu = yes ]; then
    break
  elif [ ${#works[@]} -gt 0 ]; then
    say "- **bench, $first, $setting**: not run, the compiled bench failed"
  elif [ "$(left)" -gt 60 ]; then
    bench "$first, $setting" default "$first" "$(left)" "$setting"
    say ""
    awk -v name="$setting" '/^## / { on = substr($0, length($0) - length(name) + 1) == name } on' "$out/bench_train.md" |
      grep -aE '^\| (battles|turns|GFLOP|GPU busy|peak)' | while IFS= read -r line; do say "$line"; done
  else
    say "- **bench, $first, $setting**: not run, $(left) s are left: \`$PYTHON -m launch.bench_train --mode default" \
      "--preset $first --data $data --set $setting\`"
  fi
done
cp "$scratch"/profiles/* "$out" 2>/dev/null
# A few steps under the engine that many GPUs have, where it is installed.
if [ "$engine" = plain ] && has deepspeed && [ "$(left)" -gt 60 ]; then
  few=$([ $cpu = yes ] && echo 3 || echo 40)
  stage "training, $first, $few steps, DeepSpeed ZeRO 1" "$(left)" "${zero[@]}" --config launch/runs/h100_1gpu.yaml \
    "${common[@]}" "output=$scratch/zero" "max_steps=$few" "log.every=10"
  if [ -f "$scratch/zero/training_log.csv" ]; then figures "$scratch/zero/training_log.csv"; fi
fi
say ""
say "$([ $failed = 0 ] && echo 'All stages passed' || echo 'A STAGE FAILED'), $SECONDS s in all. Left in the folder: $(ls "$out" | tr '\n' ' ')"
exit $failed
