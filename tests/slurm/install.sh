#!/bin/sh
# Install what tests/slurm starts: Slurm and munge, from Debian's packages. Nothing is started here.
set -eu

missing=
for program in munged slurmctld slurmd sbatch scancel squeue; do
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed:$missing; that takes root and apt-get. The tests are skipped." >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
