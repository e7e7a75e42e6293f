#!/usr/bin/env bash
# A run on SLURM, one task a machine, one process a GPU: sbatch --nodes=2 launch/slurm.sh --config launch/runs/h100_1gpu.yaml
# Two minutes before its time is up every process is told by SIGUSR1, saves itself and ends with 75: the job queues itself
# again and goes on from there. Arguments go to trainer.train; the engine is DeepSpeed ZeRO 1 (ENGINE=ds_configs/zero3.json
# for another, ENGINE= for DDP).
#SBATCH --job-name=turnwise
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
engine=${ENGINE-ds_configs/zero1.json}
settings=("$@" "processes=$((SLURM_NNODES * SLURM_GPUS_ON_NODE))")
[ -n "$engine" ] && settings+=("deepspeed=$engine")
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Without --batch, --signal reaches the job's steps: srun's torchrun does not hand USR1 on, so the workers are told here.
srun --kill-on-bad-exit=1 bash -c '
    trap "pkill -USR1 -f trainer.train -U $UID" USR1
    python -m torch.distributed.run --nnodes="$SLURM_NNODES" --nproc-per-node="$SLURM_GPUS_ON_NODE" --rdzv-backend=c10d \
        --rdzv-endpoint="'"$head"':29500" --rdzv-id="$SLURM_JOB_ID" -m trainer.train "$@" &
    run=$!
    while true; do
        wait "$run"; code=$?
        kill -0 "$run" 2>/dev/null || exit "$code"
    done
' train "${settings[@]}"
code=$?
# torchrun says 1 whatever its processes said; a whole checkpoint is what tells whether going on makes sense.
if [ "$code" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
