#!/bin/bash
# Makes the image of the built programs with buildah, podman or docker, whichever is there first. From the same
# programs it makes the same image, byte for byte (with docker: the same files, but another date).
#
#   image.sh PROGRAMS IMAGE
#
# BASE      what the image is made on (default: scratch, with the C library of this machine)
# BUILDER   buildah, podman or docker, with arguments
# SOURCE_DATE_EPOCH   the date of everything in the image (default: that of the commit)
set -euo pipefail
umask 022

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
programs=$1 image=$2 base=${BASE:-scratch}
version=$(sed -n 's/^version = //p' "$root/setup.cfg")
date=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

# What the programs take from the machine is the C library and what PyInstaller's start-up code is linked with; the
# libraries in lib/ find each other there.
copy_libc() {
    local library
    while read -r library; do
        mkdir -p "$context/libc$(dirname "$library")"
        cp -L "$library" "$context/libc$library"
    done < <({
        find "$programs" -maxdepth 1 -type f -perm -u+x -print0 | xargs -0 -n 1 ldd
        find "$programs/lib" -type f -name '*.so*' -print0 | LD_LIBRARY_PATH=$programs/lib xargs -0 -n 1 ldd
    } 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*' | grep -v "^$programs/" | LC_ALL=C sort -u)
}

programs=$(cd "$programs" && pwd)
cp -R --no-dereference --preserve=mode,links "$programs" "$context/programs"
rm -f "$context/programs/.built"
chmod -R u=rwX,go=rX "$context/programs"
mkdir "$context/libc"
if [ "$base" = scratch ]; then
    copy_libc
fi
cp "$root/packaging/Containerfile" "$context/"

builder=${BUILDER:-}
for candidate in buildah podman docker; do
    if [ -z "$builder" ] && command -v "$candidate" >/dev/null; then
        builder=$candidate
    fi
done
arguments=(--file "$context/Containerfile" --tag "$image" --build-arg "BASE=$base" --build-arg "VERSION=$version")
# shellcheck disable=SC2086 # BUILDER may hold arguments
case $builder in
    '')
        echo 'image.sh: none of buildah, podman and docker is installed' >&2
        exit 1
        ;;
    docker*) SOURCE_DATE_EPOCH=$date $builder build "${arguments[@]}" "$context" ;;
    *) $builder build --timestamp "$date" --pull=missing "${arguments[@]}" "$context" ;;
esac
echo "made $image"
