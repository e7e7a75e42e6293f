#!/usr/bin/env bash
# The model to start from, battle/starter, rebuilt from nothing: some five hours on two CPU cores.
#
#   launch/starter.sh OUT [key=value overrides of every training run …]
#
# Battles between the baselines → imitation of the strongest of them → three more rounds, each from the model before,
# over more such battles and over battles that it played itself: there the planner shows what to do in the states that
# the imitator's own mistakes lead to (DAgger: Ross et al. 2011), the last one in 32 formats instead of five → played with
# teams that were never recorded → packed into battle/starter. A stage that is there already is not done again.
# Environment: PYTHON, BATTLES and SEARCHED (to record in the first round), LATER_BATTLES (in a later one),
# EVAL_BATTLES (per opponent and format), TARGET (folder to pack into), PROCESSES (that train together; 2).
set -euo pipefail

out=${1:?usage: launch/starter.sh OUT [key=value …]}
shift
out=$(realpath -m -- "$out")
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} # paths stay those of the caller's folder
python=${PYTHON:-$root/.venv/bin/python}
formats="gen1ou gen2ou gen3ou gen4ou gen9ou"
others="gen1uu gen1nu gen1ubers gen2uu gen2nu gen2ubers gen3uu gen3nu gen3ubers gen4uu gen4nu gen4ubers gen5ou gen6ou
  gen7ou gen8ou gen9uu gen9ubers gen1randombattle gen2randombattle gen3randombattle gen4randombattle gen5randombattle
  gen6randombattle gen7randombattle gen8randombattle gen9randombattle"
later=${LATER_BATTLES:-12000}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# A path as a text of YAML, whatever is in it.
quoted() { printf "'%s'" "${1//\'/\'\'}"; }

# train RUN CONFIG [key=value …]
train() {
  "$python" -m torch.distributed.run --standalone --nproc-per-node="${PROCESSES:-2}" -m trainer.train \
    --config "$root/launch/runs/$2" "output=$(quoted "$1")" "${@:3}"
}

# record FOLDER SEED BATTLES PLAYER… → its token cache, FOLDER/cache
record() {
  # shellcheck disable=SC2086
  "$python" -m battle.selfplay --players "${@:4}" --formats $formats --battles "$3" --explore 0.03 --draft 300 \
    --seed "$2" --out "$1/battles"
  "$python" -m data.prepare cache --from "$1/battles" --out "$1/cache"
}

if [ ! -e "$out/cache/manifest.json" ]; then
  "$python" -m launch.proof record --out "$out" --battles "${BATTLES:-11200}" --searched "${SEARCHED:-100}"
fi
run=$out/starter
if [ ! -e "$run/evaluation.json" ]; then
  train "$run" starter.yaml "data.path=$(quoted "$out/cache")" "$@"
fi

sources=""
for round in 2 3 4; do
  if [ "$round" = 4 ]; then
    formats="$formats $others" later=$((later * 4 / 3)) sources=""
  fi
  here=$out/round$round
  if [ ! -e "$here/pool/cache/manifest.json" ]; then
    record "$here/pool" "1${round}1" "$((later / 2))" planner:weight=8 simple_heuristics:weight=3 type_switch:weight=3 \
      most_damage:weight=1 boss:weight=1
  fi
  if [ ! -e "$here/own/cache/manifest.json" ]; then
    record "$here/own" "1${round}2" "$((later / 2))" "own=$run:temperature=0.7,weight=6" planner:weight=7 \
      type_switch:weight=3 simple_heuristics:weight=1
  fi
  sources+="{path: $(quoted "$here/pool/cache")}, {path: $(quoted "$here/own/cache")}, "
  if [ ! -e "$here/run/evaluation.json" ]; then
    train "$here/run" starter_rounds.yaml "model.init_from=$(quoted "$run")" "data.sources=[$sources]" "$@"
  fi
  run=$here/run
done

if [ ! -e "$run/play.json" ]; then
  "$python" -m battle.evaluate --agent "starter=$run" --against simple_heuristics planner --formats $formats \
    --battles "${EVAL_BATTLES:-60}" --json "$run/play.json"
fi
"$python" -m trainer.hub pack "$run" --to "${TARGET:-$root/battle/starter}"
