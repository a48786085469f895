#!/bin/bash
# A table by a Slurm job array: each job answers one shard of every row, and the last one scores the table.
#
#   sbatch --array=1-8 docs/slurm.sh vico-table1 --checkpoint 38B --gpus-per-process 2
#
# Rows that take ViCO's ratio begin when ViCO's row is complete. A second array answers them:
#
#   first=$(sbatch --parsable --array=1-8 docs/slurm.sh ...)
#   sbatch --dependency=afterok:$first --array=1-8 docs/slurm.sh ...     # the same arguments
#
# A job that was killed or ran out of time is submitted again with its number alone (sbatch --array=3 ... would make it
# shard 3 of 1), so the number of shards is SHARDS where it is set:
#
#   SHARDS=8 sbatch --array=3 docs/slurm.sh ...
#SBATCH --job-name=vico-eval
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gres=gpu:2
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail

shards=${SHARDS:-$SLURM_ARRAY_TASK_COUNT}
# The table's folder, runs/, is made where the job was submitted; all nodes have to see it.
cd "$SLURM_SUBMIT_DIR"
# exec: Slurm's signals reach the command, which stops what it has started and keeps every answer.
exec vico-eval run "$@" --device cuda --shard "$SLURM_ARRAY_TASK_ID/$shards"
