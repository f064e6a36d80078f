#!/bin/bash
# Several nodes under SLURM. Before the time limit, or when the job is preempted, the run saves a checkpoint and the job
# goes back into the queue, from where it goes on.
#
#   sbatch recipes/accelerate/slurm.sh recipes/sfe.yaml --dataset data/ad_pl
#
# Set account and partition here or with sbatch; output_dir must be on a file system that all nodes share.
#SBATCH --job-name=sage
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
# Two minutes before the limit, to this script alone, which passes it on.
#SBATCH --signal=B:USR1@120
set -uo pipefail

config=${SAGE_ACCELERATE_CONFIG:-recipes/accelerate/multi_node.yaml}
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# The same for all nodes, another for every job.
port=$((20000 + SLURM_JOB_ID % 20000))
gpus=$((SLURM_NNODES * SLURM_GPUS_ON_NODE))

# After a time-out, which collective each process waited in.
export TORCH_FR_BUFFER_SIZE=20000 TORCH_NCCL_DUMP_ON_TIMEOUT=1
export HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True

# --kill-on-bad-exit: a node that fails must not leave the others waiting. $SLURM_NODEID is each node's own.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=1 bash -c '
    exec accelerate launch --config_file "$0" --num_machines "$SLURM_NNODES" --num_processes "$1" \
        --machine_rank "$SLURM_NODEID" --main_process_ip "$2" --main_process_port "$3" \
        tools/train.py "${@:4}" --resume
' "$config" "$gpus" "$head_node" "$port" "$@" &
step=$!

stopped=
save_and_stop() {
    stopped=yes
    echo "$(date): the time limit is near, or the job is preempted; saving a checkpoint"
    # To the training processes, `python -u tools/train.py ...`, alone: the launcher above them would die of the signal,
    # and passes SIGTERM on with 30 seconds to live.
    srun --overlap --nodes="$SLURM_NNODES" --ntasks-per-node=1 pkill -USR1 -f 'python[^ ]* -u tools/train\.py'
}
trap save_and_stop USR1
# SLURM sends it to the launchers too.
trap 'stopped=yes' TERM

# `wait` returns early when a signal is caught.
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do
    wait "$step"
    code=$?
done

# 143: stopped by a signal with everything saved. A launcher of several processes says 1 instead, hence $stopped.
if [ "$code" = 143 ] || { [ -n "$stopped" ] && [ "$code" != 0 ]; }; then
    echo "$(date): exit code $code; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
echo "$(date): exit code $code"
exit "$code"
