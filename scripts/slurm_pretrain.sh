#!/usr/bin/env bash
# Pretraining on several machines under SLURM; it survives preemption and the end of its time.
#
#   sbatch scripts/slurm_pretrain.sh pretrain/farl_vitb16_laionface20m.yaml --data.batch_size 160
#   sbatch --nodes 2 --export ALL,SHARDS=/data/laion_face,SHARD_CACHE=/tmp/laion_face scripts/slurm_pretrain.sh CONFIG
#
# Submit it from the root of the repository, on a file system that every machine sees. The first argument is a config,
# what follows goes to 'farl-lightning fit'. From the environment:
#   RUN_DIR      folder of this run (runs/slurm-JOB)
#   SHARDS, SHARD_CACHE  copy the shards to a disk of each machine first, and read them there
#   MASTER_PORT  where processes meet (derived from the job)
#
# Five minutes before its end, SLURM sends USR1 to this script. All processes then finish their step, write
# last-safety.ckpt and end (callback SafetyCheckpoint, which the pretraining recipes list); the job is put back into the
# queue, keeps its number, and continues with the next sample.
# A failure ends the job at once and does not requeue it: continue it by submitting again with the same RUN_DIR.
#SBATCH --job-name=farl-pretrain
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
#SBATCH --output=slurm-%j.log
set -euo pipefail

: "${SLURM_JOB_ID:?submit this with sbatch}"
: "${1:?give a config, such as pretrain/farl_vitb16_laionface20m.yaml}"
cd "${SLURM_SUBMIT_DIR:?}"
# shellcheck source=scripts/common.sh
source scripts/common.sh

CONFIG=$1
shift
export RUN_DIR=${RUN_DIR:-runs/slurm-$SLURM_JOB_ID}
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts[0]:?scontrol names no host}
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$RUN_DIR"

echo "=== job $SLURM_JOB_ID, life $((${SLURM_RESTART_COUNT:-0} + 1)): $SLURM_NNODES machines meet at $MASTER_ADDR:$MASTER_PORT, run in $RUN_DIR"
srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --label \
  bash -c 'source scripts/common.sh && print_environment && stage_shards'

# The processes heed the signal themselves, at the end of a step (callback SafetyCheckpoint). Lightning's own requeueing
# would save from inside its signal handler, in the middle of a step, so it is switched off and the job requeued here.
mapfile -t arguments < <(run_arguments)
arguments+=("--trainer.num_nodes=$SLURM_NNODES" "--trainer.devices=$SLURM_NTASKS_PER_NODE")
arguments+=('--trainer.plugins+={"class_path": "lightning.pytorch.plugins.environments.SLURMEnvironment", "init_args": {"auto_requeue": false}}')

preempted=0
step=
pass_on() { [ -z "$step" ] || kill -s "$1" "$step" 2>/dev/null || true; } # srun hands signals to every task
trap 'preempted=1; echo "=== USR1: saving, then back into the queue"; pass_on USR1' USR1
trap 'echo "=== TERM: saving, then the end"; pass_on TERM' TERM # scancel: whoever stops a job does not want it back

# one dead process ends all of them, instead of leaving the others to wait for it
srun --kill-on-bad-exit=1 --cpu-bind=cores farl-lightning fit "--config=$CONFIG" "${arguments[@]}" "$@" &
step=$!
[ "$preempted" = 0 ] || pass_on USR1 # a signal before there was anybody to hear it
while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a signal ends a wait, not the step
code=0
wait "$step" || code=$?

if [ "$preempted" = 1 ] && [ "$code" != 0 ]; then
  echo "=== saved and ended with code $code; requeueing job $SLURM_JOB_ID"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
echo "=== ended with code $code"
exit "$code"
