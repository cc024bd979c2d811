#!/usr/bin/env bash
# Pretraining on several machines with torchrun alone: start it on every machine, in any order.
#
#   NODES=4 HEAD=10.0.0.1 ADDRESS=10.0.0.3 scripts/torchrun_pretrain.sh pretrain/farl_vitb16_laionface20m.yaml --data.batch_size 160
#
# Start it in the root of the repository, on a file system that every machine sees. The first argument is a config, what
# follows goes to 'farl-lightning fit'. From the environment:
#   NODES        machines (1)
#   HEAD         address of the machine where all meet (127.0.0.1); it must be up for the others to continue
#   ADDRESS      address of this machine, as the others reach it (HEAD)
#   PORT         where they meet (29500)
#   GPUS         processes on this machine (one per GPU)
#   INTERFACE    network interface for gloo and NCCL, where a machine has several (they choose)
#   RESTARTS     how often a failed process brings all back to the last checkpoint (3)
#   RUN_DIR      folder of this run (runs/torchrun)
#   SHARDS, SHARD_CACHE  copy the shards to this machine's disk first, and read them there
#
# When a process or a machine fails, all processes end and begin again with the last checkpoint. A machine that comes
# back joins by starting this script again; the others wait for it (JOIN_TIMEOUT, 1800 s). A link that is down is waited
# for, too (READ_TIMEOUT, 180 s; torchrun alone gives up after 60). TERM saves and ends.
set -euo pipefail

: "${1:?give a config, such as pretrain/farl_vitb16_laionface20m.yaml}"
# shellcheck source=scripts/common.sh
source scripts/common.sh

CONFIG=$1
shift
NODES=${NODES:-1}
HEAD=${HEAD:-127.0.0.1}
ADDRESS=${ADDRESS:-$HEAD}
GPUS=${GPUS:-$(nvidia-smi --list-gpus 2>/dev/null | grep -c . || true)}
[ "$GPUS" -gt 0 ] || { echo "no GPU was found; give GPUS=N, the processes on this machine" >&2; exit 2; }
if [ "$NODES" -gt 1 ] && [ "$HEAD" = 127.0.0.1 ]; then
  echo "NODES=$NODES needs HEAD=ADDRESS: 127.0.0.1 is another machine on each of them" >&2
  exit 2
fi
export RUN_DIR=${RUN_DIR:-runs/torchrun}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# torchrun's agents count restarts each for itself; with a shared store a new attempt can meet addresses of the old one
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
if [ -n "${INTERFACE:-}" ]; then export GLOO_SOCKET_IFNAME=$INTERFACE NCCL_SOCKET_IFNAME=$INTERFACE; fi
mkdir -p "$RUN_DIR"

echo "=== $ADDRESS: one of $NODES machines with $GPUS processes, meeting at $HEAD:${PORT:-29500}, run in $RUN_DIR"
print_environment
stage_shards

mapfile -t arguments < <(run_arguments)
is_head=0
[ "$ADDRESS" != "$HEAD" ] || is_head=1
# exec: signals reach torchrun itself, which hands TERM to its processes
exec torchrun --nnodes="$NODES" --nproc-per-node="$GPUS" --max-restarts="${RESTARTS:-3}" \
  --rdzv-backend=c10d --rdzv-id=farl --rdzv-endpoint="$HEAD:${PORT:-29500}" --local-addr="$ADDRESS" \
  --rdzv-conf="is_host=$is_head,join_timeout=${JOIN_TIMEOUT:-1800},read_timeout=${READ_TIMEOUT:-180}" \
  --shutdown-timeout="${SHUTDOWN_TIMEOUT:-60}" \
  -m farl_lightning fit "--config=$CONFIG" "${arguments[@]}" \
  "--trainer.num_nodes=$NODES" "--trainer.devices=$GPUS" "$@"
