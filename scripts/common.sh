#!/usr/bin/env bash
# What both launch scripts need on every machine; it is sourced, and does nothing by itself.

# Say where this runs and with what: the first lines of a log are the ones that explain a failure.
print_environment() {
  echo "--- $(hostname) at $(date --iso-8601=seconds)"
  echo "code      $(git describe --always --dirty 2>/dev/null || echo 'no git') in $PWD"
  python -c 'import platform, torch, lightning, farl_lightning
print("python   ", platform.python_version())
print("torch    ", torch.__version__, "cuda", torch.version.cuda, "nccl", torch.distributed.is_nccl_available())
print("lightning", lightning.__version__, "farl-lightning", farl_lightning.__version__)' || return 1
  if command -v nvidia-smi >/dev/null; then nvidia-smi --list-gpus; else echo "gpus      none"; fi
  echo "cores     $(nproc), open files $(ulimit -n), shared memory $(df -h --output=avail /dev/shm 2>/dev/null | tail -n 1)"
  env | grep -E '^(SLURM_(JOB|NNODES|NTASKS|NODEID|PROCID|RESTART)|MASTER_|NCCL_|GLOO_|TORCH_|CUDA_VIS|OMP_|FARL_)' | sort || true
}

# Copy the shards to this machine's own disk, once; SHARD_CACHE empty or unset reads them from where they are.
# Only what is missing or has another size or time is copied, so that a restart begins at once, and a copy that was
# interrupted is taken up again.
stage_shards() {
  [ -n "${SHARD_CACHE:-}" ] || return 0
  : "${SHARDS:?SHARD_CACHE needs SHARDS: the folder of shards to copy}"
  mkdir -p "$SHARD_CACHE"
  (
    flock 9 # tasks of one machine wait for the one that copies
    if command -v rsync >/dev/null; then
      rsync --archive --copy-links --partial "$SHARDS/" "$SHARD_CACHE/"
    else
      cp --recursive --dereference --update --preserve=timestamps "$SHARDS/." "$SHARD_CACHE/"
    fi
  ) 9>"$SHARD_CACHE/.lock" || return 1
  echo "shards    $(du --summarize --human-readable "$SHARD_CACHE" | cut -f 1) in $SHARD_CACHE"
}

# Print, one per line, the arguments that every machine gives: RUN_DIR keeps all lives of one run together, so that
# 'last' finds the checkpoints of this run and of no other.
run_arguments() {
  printf '%s\n' --config=trainer/multinode.yaml \
    "--trainer.default_root_dir=$RUN_DIR" "--trainer.logger.save_dir=$RUN_DIR" --ckpt_path=last
  if [ -n "${SHARD_CACHE:-}" ]; then printf '%s\n' "--data.train_shards=$SHARD_CACHE"; fi
}
