#!/usr/bin/env bash
# A run on SLURM, one task a machine, one process a GPU:
#
#     sbatch --nodes=2 launch/slurm.sh OUTPUT --config launch/runs/h100_1gpu.yaml batch_scaling=multiply
#
# OUTPUT is the run's output folder, on a disk that every machine sees; what follows goes to trainer.train. The engine is
# DeepSpeed ZeRO 1 (ENGINE=ds_configs/zero3.json for another, ENGINE= for DDP). Two minutes before its time is up every
# process is told by SIGUSR1 and saves itself; the job then queues itself again and goes on from there, as it does after
# any other bad end before which there was progress, a newer checkpoint.
#SBATCH --job-name=turnwise
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
output=${1:?give the run\'s output folder, then the arguments of trainer.train}
shift
engine=${ENGINE-ds_configs/zero1.json}
settings=("$@" "output='${output//\'/\'\'}'" "processes=$((SLURM_NNODES * SLURM_GPUS_ON_NODE))")
[ -n "$engine" ] && settings+=("deepspeed=$engine")
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
newest() { ls -d "$output"/step_*/manifest.json 2>/dev/null | tail -n 1; }
before=$(newest)
# Queued again after a checkpoint, it goes on from there, also where the arguments hold another `resume`.
if [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ]; then
    mkdir -p "$output" && touch "$output/.begun"
elif [ -n "$before" ] && [ "$before" -nt "$output/.begun" ]; then
    settings+=("resume=auto")
fi
# Without --batch, --signal reaches the job's steps, on some clusters this shell alone, on others each of its processes.
# torchrun would end of USR1 without handing it on: it is deaf to it, and the workers, its children, are told here.
# srun gives a task one core unless it is told again what sbatch was told (since SLURM 22.05).
srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} bash -c '
    told=0
    tell() {
        told=$((told + 1))
        pkill "-$1" -P "$run"
    }
    (
        trap "" USR1
        exec python -m torch.distributed.run --nnodes="$SLURM_NNODES" --nproc-per-node="$SLURM_GPUS_ON_NODE" \
            --rdzv-backend=c10d --rdzv-endpoint="'"$head"':$((20000 + SLURM_JOB_ID % 10000))" --rdzv-id="$SLURM_JOB_ID" \
            -m trainer.train "$@"
    ) &
    run=$!
    trap "tell USR1" USR1
    trap "tell TERM" TERM
    # A trapped signal ends `wait` early, with a code of its own: only a wait that none has ended tells the run`s.
    while true; do
        before_wait=$told
        wait "$run"
        code=$?
        [ "$told" -eq "$before_wait" ] && break
    done
    # torchrun says 1 whatever its processes said.
    [ "$code" -ne 0 ] && [ "$told" -gt 0 ] && exit 75
    exit "$code"
' train "${settings[@]}"
code=$?
if [ "$code" -eq 75 ] || { [ "$code" -ne 0 ] && [ "$(newest)" != "$before" ]; }; then
    echo "slurm.sh: ended with $code; queued again" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
