#!/bin/sh
# Run the tests with the Python of a release of Debian, in a folder of its own: `run.sh trixie`, `run.sh sid`.
# zarr, NumPy and others give up old Pythons soon, so newer ones have other releases of them. Takes root, debootstrap,
# the network and a quarter of an hour; elsewhere it says so. Nothing is left running, the folder stays for the next time.
set -eu
cd "$(dirname "$0")/../.."
suite=$1
root=${PYTHONS_FOLDER:-/var/tmp/softmax-dask-pythons}/$suite

if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "skipped: $suite takes root and debootstrap." >&2
    exit 0
fi
if [ ! -e "$root/ready" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -1)
    packages=python3,python3-venv,libpython3-dev,ca-certificates,g++,git,make,procps
    mkdir -p "$root"
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$root.log" 2>&1
    touch "$root/ready"
fi
cp /etc/resolv.conf "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
rm -rf "$root/project"
mkdir "$root/project"
git ls-files -z | xargs -0 cp --parents --target-directory="$root/project"

# Mounts of a namespace go with its last process.
exec unshare --mount sh -eu -c '
    mount --rbind /dev "$1/dev"
    mount -t proc proc "$1/proc"
    if [ -n "${SOFTMAX_DASK_TEST_DATA:-}" ]; then
        mkdir -p "$1/data"
        mount --bind "$SOFTMAX_DASK_TEST_DATA" "$1/data"
        export SOFTMAX_DASK_TEST_DATA=/data
    fi
    exec chroot "$1" env -u VIRTUAL_ENV HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin VENV=/venv \
        make --directory /project test
' sh "$root"
