#!/bin/bash
# Renews the files in requirements/. Each holds the newest versions that the ranges in setup.cfg and
# pyproject.toml allow, with the hashes of all their files, for every Python from 3.10 on. Where a package has
# given up an older Python, a marker gives that Python the last version that supports it.
#
#   backend.txt   what builds packages from their sources, Ratchet among them
#   develop.txt   what runs, tests and builds Ratchet
#   bench.txt     what runs Ratchet and draws the benchmark's pictures
#   lock.txt      uv, which makes these files
#
#   lock.sh VENV  the environment that uv is in: `make update` makes it, from lock.txt
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv=$1/bin/uv
venv_python=$1/bin/python
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

# --no-config, and no index: what this machine is set up with has no place in the files.
compile() {
    local name=$1
    shift
    echo "locking requirements/$name.txt"
    UV_PYTHON_DOWNLOADS=never "$uv" pip compile --quiet --no-config --universal \
        --python-version 3.10 --python "$venv_python" --generate-hashes --no-emit-index-url \
        --no-emit-find-links --no-annotate --custom-compile-command 'make update' \
        --output-file "$new/$name.txt" "$@" >/dev/null
}

# Each file keeps to the versions of the one before it, so that no package has two versions in an environment
# that is made from several files. Building what comes as source only, to see what it needs, keeps to the
# locked backend as well.
"$venv_python" -I -c '
import ast, re
found = re.search(r"^requires = (\[.*\])$", open("pyproject.toml").read(), re.MULTILINE)
print("\n".join(ast.literal_eval(found[1])))' >"$new/backend.in"
compile backend "$new/backend.in"
locked=(--build-constraints "$new/backend.txt" --constraints "$new/backend.txt")
compile develop "${locked[@]}" --extra dev --extra build setup.cfg
compile bench "${locked[@]}" --constraints "$new/develop.txt" --extra bench setup.cfg
printf 'uv\n' >"$new/lock.in"
compile lock "$new/lock.in"

mkdir -p requirements
for name in backend develop bench lock; do
    mv "$new/$name.txt" "requirements/$name.txt"
done
