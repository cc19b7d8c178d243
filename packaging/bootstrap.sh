#!/bin/bash
# Makes a fresh Debian or Ubuntu machine able to run `make demo`, `make test` and `make build`:
# the distribution's packages first, then a virtual environment in .venv. Installs only what is
# missing, so that it is fast the second time, and starts no service.
#
#   packaging/bootstrap.sh system   the distribution's packages (needs root; else says what is missing)
#   packaging/bootstrap.sh tests    the same, and the container runtimes that only the tests want
#   packaging/bootstrap.sh venv     the virtual environment (needs no root)
#   packaging/bootstrap.sh bench    what `make bench` needs besides, into the same environment
#   packaging/bootstrap.sh update   renews requirements/ (needs no root)
#   packaging/bootstrap.sh          system and venv
#
# The environment holds the versions that requirements/ locks, and pip compares the hash of each file with the
# one that stands there. LATEST=1 makes .venv-latest instead, of the newest versions that setup.cfg allows.
#
# PYTHON names the interpreter for the environment. CI=true or RATCHET_REQUIRE_ROOT=1: whatever is missing is an
# error; otherwise it is said and the rest goes on, as for a developer without root.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
locks=$here/requirements
latest=${LATEST:-}
venv=${VENV:-$here/.venv${latest:+-latest}}
for_tests=
strict=
if [ "${CI:-}" = true ] || [ "${RATCHET_REQUIRE_ROOT:-}" = 1 ]; then
    strict=1
fi

say() { printf 'bootstrap: %s\n' "$*" >&2; }

# The real interpreter behind NAME, or nothing: `python3` may be a version manager's shim that takes
# longer to start than the interpreter itself, and an environment made from one environment must not
# depend on it.
real_python() {
    "$1" -I -c '
import os, sys
if sys.version_info >= (3, 10):
    print(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))' 2>/dev/null || true
}

has_venv() { "$1" -I -c 'import ensurepip, venv' 2>/dev/null; }

# The distribution's interpreter comes first: `make build` puts its libpython into the programs, it is
# built for speed, and it has sockets and struct inside instead of in files to load.
choose_python() {
    local candidate python
    for candidate in ${PYTHON:-/usr/bin/python3 python3}; do
        python=$(real_python "$candidate")
        if [ -n "$python" ] && has_venv "$python"; then
            printf '%s\n' "$python"
            return
        fi
    done
}

# PyInstaller copies the shared library of Python into the programs.
has_libpython() {
    "$1" -I -c '
import ctypes, os, sys, sysconfig
name = sysconfig.get_config_var("INSTSONAME") or ""
if ".so" not in name:
    name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
for path in (os.path.join(sysconfig.get_config_var("LIBDIR") or "", name), name):
    try:
        ctypes.CDLL(path)
        sys.exit(0)
    except OSError:
        pass
sys.exit(1)' 2>/dev/null
}

has_file() {
    local file
    for file in "$@"; do
        if [ -e "$file" ]; then
            return 0
        fi
    done
    return 1
}

has_package() { apt-cache show "$1" >/dev/null 2>&1; }

# The packages that are not there, one a line. What counts is what they are wanted for, so that an etcd
# or a plugin that was installed in another way is left alone.
missing_packages() {
    local python
    python=$(choose_python)
    if [ -z "$python" ]; then
        echo python3
        echo python3-venv
    fi
    if [ -n "$python" ] && ! has_libpython "$python"; then
        "$python" -I -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])'
    fi
    command -v objcopy >/dev/null || echo binutils
    command -v etcd >/dev/null || echo etcd-server
    command -v ip >/dev/null || echo iproute2
    command -v ping >/dev/null || echo iputils-ping
    if ! has_file /usr/lib/cni/bridge /opt/cni/bin/bridge; then
        echo containernetworking-plugins
    fi
    if ! has_file /usr/lib/frr/ospfd; then
        echo frr
    fi
    if [ -n "$for_tests" ]; then
        command -v containerd >/dev/null || echo containerd
        command -v runc >/dev/null || echo runc
        command -v podman >/dev/null || echo podman
        has_file /usr/bin/conmon /usr/libexec/podman/conmon /usr/lib/podman/conmon || echo conmon
        command -v openssl >/dev/null || echo openssl
        command -v nft >/dev/null || echo nftables
        has_file /usr/sbin/bird || echo bird2
        has_file /usr/bin/gobgpd /usr/sbin/gobgpd || echo gobgpd
        command -v cc >/dev/null || printf '%s\n' gcc libc6-dev
        command -v musl-gcc >/dev/null || echo musl-tools
        # The small one: 59 MB to fetch, without a window system.
        command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null ||
            echo chromium-headless-shell
    fi
}

# Packages of servers start them when they are installed, on their usual ports and on the machine's own
# network. A policy file forbids that; it is removed again, unless it was there before.
policy=/usr/sbin/policy-rc.d
made_policy=
remove_policy() {
    if [ -n "$made_policy" ]; then
        rm -f "$policy"
        made_policy=
    fi
}

apt() {
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" </dev/null >&2
}

install_packages() {
    local packages=("$@") i package
    if ! has_file /var/lib/apt/lists/*_Packages* || ! has_package "${packages[0]}"; then
        say 'updating the package lists'
        apt update
    fi
    for i in "${!packages[@]}"; do
        # Older distributions have the server in the package `etcd`.
        if [ "${packages[$i]}" = etcd-server ] && ! has_package etcd-server; then
            packages[i]=etcd
        fi
        if [ "${packages[$i]}" = chromium-headless-shell ] && ! has_package chromium-headless-shell; then
            packages[i]=chromium
        fi
    done
    say "installing ${packages[*]}"
    if [ ! -e "$policy" ]; then
        made_policy=1
        trap remove_policy EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    if ! apt install --no-install-recommends "${packages[@]}"; then
        # Old lists name versions that the mirrors no longer have.
        apt update
        apt install --no-install-recommends "${packages[@]}"
    fi
    remove_policy
    # Nor at the next boot. What was there before this run is left alone.
    if command -v systemctl >/dev/null; then
        for package in "${packages[@]}"; do
            case $package in
                etcd | etcd-server) systemctl disable --quiet etcd.service 2>/dev/null || true ;;
                frr | containerd | gobgpd) systemctl disable --quiet "$package.service" 2>/dev/null || true ;;
                bird2) systemctl disable --quiet bird.service 2>/dev/null || true ;;
                podman)
                    systemctl disable --quiet podman.socket podman.service podman-restart.service \
                        podman-auto-update.timer podman-auto-update.service 2>/dev/null || true
                    ;;
            esac
        done
    fi
}

give_up() {
    say "$1"
    if [ -n "$strict" ]; then
        exit 1
    fi
}

system() {
    local missing
    mapfile -t missing < <(missing_packages)
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        give_up "missing, and there is no apt-get to install it with: ${missing[*]}"
    elif [ "$(id -u)" -ne 0 ]; then
        give_up "missing, and only root can install it: apt-get install ${missing[*]}"
    else
        install_packages "${missing[@]}"
        # Which libpython is wanted is known once the interpreter is there.
        mapfile -t missing < <(missing_packages)
        if [ ${#missing[@]} -ne 0 ]; then
            install_packages "${missing[@]}"
            mapfile -t missing < <(missing_packages)
        fi
        if [ ${#missing[@]} -ne 0 ]; then
            give_up "still missing after installing it: ${missing[*]}"
        fi
    fi
}

pip_install() {
    "$1/bin/python" -m pip install -qq --disable-pip-version-check --no-input "${@:2}" </dev/null
}

# What is not locked is not installed. Sources are built with the locked backend, which therefore comes first:
# in an environment of its own, pip would build them with whatever is newest, and check no hash.
install_locked() {
    local into=$1 name
    shift
    for name in backend "$@"; do
        pip_install "$into" --require-hashes --no-build-isolation --use-pep517 \
            --requirement "$locks/$name.txt"
    done
}

# What the environment is made from: the interpreter, the package's own description, the locks.
wanted_for() {
    local python=$1
    {
        "$python" -I -c 'import sys; print(sys.executable, sys.version)'
        echo "$here"
        cat "$here/setup.cfg" "$here/pyproject.toml"
        if [ -n "$latest" ]; then
            date -u +%F
        else
            cat "$locks/backend.txt" "$locks/develop.txt"
        fi
    } | sha256sum
}

# The stamp holds what the environment was made from, so that a change of it is noticed and nothing else costs
# anything. The newest versions are looked up once a day.
venv() {
    local python stamp wanted
    python=$(choose_python)
    if [ -z "$python" ]; then
        say "no Python 3.10 or newer with the venv module: apt-get install python3-venv"
        exit 1
    fi
    stamp=$venv/.ratchet-stamp
    wanted=$(wanted_for "$python")
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "making $venv with $python${latest:+, of the newest versions that setup.cfg allows}"
    "$python" -I -m venv --clear "$venv"
    if [ -n "$latest" ]; then
        pip_install "$venv" --upgrade setuptools
        pip_install "$venv" --editable "$here[dev,build]"
    else
        install_locked "$venv" develop
        pip_install "$venv" --no-deps --no-build-isolation --editable "$here"
    fi
    printf '%s\n' "$wanted" >"$stamp"
}

bench() {
    if [ -n "$latest" ]; then
        "$venv/bin/python" -c 'import matplotlib' 2>/dev/null ||
            pip_install "$venv" --editable "$here[bench]"
    elif ! sha256sum --check --status "$venv/.bench-stamp" 2>/dev/null; then
        install_locked "$venv" bench
        sha256sum "$locks/bench.txt" >"$venv/.bench-stamp"
    fi
}

# The tool that locks is locked itself.
update() {
    local python
    python=$(choose_python)
    if [ -z "$python" ]; then
        say "no Python 3.10 or newer with the venv module: apt-get install python3-venv"
        exit 1
    fi
    tool=$(mktemp -d)
    trap 'rm -rf "$tool"' EXIT  # a global: the trap runs when this function is over
    "$python" -I -m venv "$tool"
    pip_install "$tool" --require-hashes --requirement "$locks/lock.txt"
    "$here/packaging/lock.sh" "$tool"
}

# Two runs at once, from two terminals, would make the same environment.
exec 9<"$here/setup.cfg"
flock 9

case ${1:-both} in
    system) system ;;
    tests)
        for_tests=1
        system
        ;;
    venv) venv ;;
    bench) bench ;;
    update) update ;;
    both)
        system
        venv
        ;;
    *)
        say "unknown part: $1"
        exit 2
        ;;
esac
