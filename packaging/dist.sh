#!/bin/bash
# Makes what a release consists of:
#
#   dist.sh PROGRAMS FOLDER [VENV]
#
#   ratchet_cni-V-py3-none-any.whl, ratchet_cni-V.tar.gz   the wheel and the source
#   ratchet-V-linux-ARCH.tar.gz          the built programs with install.sh and the systemd unit
#   ratchet-V-linux-ARCH.cdx.json        what they consist of (CycloneDX)
#   ratchet-V.yaml, ratchet-V-NAME.yaml  the manifests in deploy/ and deploy/overlays/NAME, rendered
#   SHA256SUMS
#
# For another architecture run it on a machine of that architecture, with the same FOLDER: what is there of this
# version stays, and SHA256SUMS is made anew. All dates are SOURCE_DATE_EPOCH's (default: the commit's).
set -euo pipefail
umask 022

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
programs=$1 folder=$2 venv=${3:-$root/.venv}
version=$(sed -n 's/^version = //p' "$root/setup.cfg")
case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
esac
name=ratchet-$version-linux-$arch
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$(cd "$(dirname "$venv/bin/python")" && pwd)/python

# In a copy: setuptools leaves folders behind where it builds.
source_copy() {
    mkdir "$work/source"
    (cd "$root" && cp -R setup.cfg pyproject.toml MANIFEST.in Makefile LICENSE README.md CHANGELOG.md \
        CONTRIBUTING.md SECURITY.md .importlinter ratchet ratchet_child ratchetctl front packaging requirements deploy \
        examples jobs docs "$work/source/")
    find "$work/source" -name __pycache__ -prune -exec rm -rf {} +
    find "$work/source" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

python_packages() {
    source_copy
    (cd "$work/source" && "$python" -c '
import sys
from setuptools import build_meta
folder = sys.argv[1]  # which setuptools changes
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)' "$work/packages" >"$work/log" 2>&1) || {
        tail -n 30 "$work/log" >&2
        exit 1
    }
    # The archive of the source with dates and owners that are always the same.
    repack "$work/packages/ratchet_cni-$version.tar.gz"
    mv "$work/packages"/* "$work/out/"
}

repack() {
    mkdir "$work/repacked"
    tar -C "$work/repacked" -xzf "$1"
    archive "$work/repacked" "ratchet_cni-$version" "$1"
}

# archive FOLDER NAME FILE
archive() {
    tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu --mtime="@$SOURCE_DATE_EPOCH" -cf - "$2" |
        gzip -n -6 >"$3"
}

binaries() {
    cp "$programs/sbom.cdx.json" "$work/out/$name.cdx.json"
    mkdir -p "$work/tree/$name"
    cp -R --no-dereference --preserve=mode,links "$programs" "$work/tree/$name/ratchet.d"
    rm -f "$work/tree/$name/ratchet.d/.built"
    cp "$root/packaging/install.sh" "$root/packaging/ratchet-child@.service" "$root/LICENSE" "$work/tree/$name/"
    cp "$work/out/$name.cdx.json" "$work/tree/$name/"
    archive "$work/tree" "$name" "$work/out/$name.tar.gz"
}

manifests() {
    local overlay
    "$python" "$root/packaging/kustomize.py" "$root/deploy" >"$work/out/ratchet-$version.yaml"
    for overlay in "$root/deploy/overlays"/*; do
        "$python" "$root/packaging/kustomize.py" "$overlay" \
            >"$work/out/ratchet-$version-$(basename "$overlay").yaml"
    done
}

mkdir -p "$work/out" "$work/packages" "$folder"
python_packages
binaries
manifests
find "$folder" -mindepth 1 -maxdepth 1 -type f -not -name "*$version*" -delete
mv -f "$work/out"/* "$folder/"
rm -f "$folder/SHA256SUMS"
(cd "$folder" && LC_ALL=C sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
echo "made $folder: $(cd "$folder" && ls | wc -l) files of version $version"
