#!/bin/bash
# Builds the programs into a folder, beside it first: an existing build is replaced by a whole one or not at all.
#
#   build.sh FOLDER [VENV]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$1
venv=${2:-$root/.venv}
work=$root/build/pyinstaller
log=$root/build/pyinstaller.log

rm -rf "$work"
mkdir -p "$work" "$(dirname "$target")"
if ! "$venv/bin/pyinstaller" --noconfirm --log-level INFO --distpath "$work/dist" \
    --workpath "$work/work" "$root/packaging/ratchet.spec" >"$log" 2>&1 </dev/null; then
    tail -n 40 "$log" >&2
    exit 1
fi
# Before the folder is put to use: what the runtime executes must never be missing.
if command -v "${CC:-cc}" >/dev/null; then
    "$root/packaging/front.sh" release "$work/dist/ratchet.d/ratchet"
    libc=$("$root/packaging/front.sh" libc)
    front="with the front ($libc)"
else
    ln -s ratchet-parent "$work/dist/ratchet.d/ratchet"
    libc=
    front="without the front, because there is no C compiler: pods wait for Python to start"
fi
# kubectl finds its plugins, and what completes their words, by these names.
ln -s ratchetctl "$work/dist/ratchet.d/kubectl-ratchet"
ln -s ratchetctl "$work/dist/ratchet.d/kubectl_complete-ratchet"
# The programs are of the environment's Python, and so is what is said of them.
"$venv/bin/python" "$root/packaging/sbom.py" "$work/dist/ratchet.d" "$work/work/ratchet/sources.json" $libc
rm -rf "$target"
mv "$work/dist/ratchet.d" "$target"
rm -rf "$work"
echo "built $target ($(du -sh "$target" | cut -f1)), $front"
