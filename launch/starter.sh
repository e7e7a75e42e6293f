#!/usr/bin/env bash
# The model to start from, battle/starter, rebuilt from nothing: about two hours on two CPU cores.
#
#   launch/starter.sh OUT [key=value overrides of the training run …]
#
# Battles between the baselines → imitation of the strongest of them → played with teams that were never recorded → packed
# into battle/starter. A stage that is there already is not done again. Environment: PYTHON, BATTLES and SEARCHED (to
# record), EVAL_BATTLES (per opponent and format), TARGET (folder to pack into).
set -euo pipefail

out=${1:?usage: launch/starter.sh OUT [key=value …]}
shift
out=$(realpath -m -- "$out")
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} # paths stay those of the caller's folder
python=${PYTHON:-$root/.venv/bin/python}
run=$out/starter

if [ ! -e "$out/cache/manifest.json" ]; then
  "$python" -m launch.proof record --out "$out" --battles "${BATTLES:-11200}" --searched "${SEARCHED:-100}"
fi
if [ ! -e "$run/evaluation.json" ]; then
  "$python" -m trainer.train --config "$root/launch/runs/starter.yaml" "data.path=$out/cache" "output=$run" "$@"
fi
if [ ! -e "$run/play.json" ]; then
  "$python" -m battle.evaluate --agent "starter=$run" --against all --formats gen1ou gen2ou gen3ou gen4ou gen9ou \
    --battles "${EVAL_BATTLES:-500}" --json "$run/play.json"
fi
"$python" -m trainer.hub pack "$run" --to "${TARGET:-$root/battle/starter}"
