#!/bin/bash
# Installs the built programs so that a node which is attaching pods at this moment never meets half a
# program: each build goes into a folder of its own, BINDIR/ratchet.d/<build>, and is put to use by renaming
# symbolic links. A program finds its libraries, and the front finds the parent, through the folder that it was
# started from, so one that was started before the rename goes on with the old build, which is therefore kept
# until the next install.
#
# A child that runs notices that its program was replaced and becomes the new one, with its socket and its lock.
#
#   install.sh install|uninstall PROGRAMS DESTDIR BINDIR CTLDIR [UNITDIR]
set -euo pipefail
umask 022

what=$1 programs=$2 destdir=$3 bindir=$4 ctldir=$5 unitdir=${6:-}
plugins=$destdir$bindir
tree=$plugins/ratchet.d
unit=ratchet-child@.service
# ratchetctl, and the names by which kubectl finds it
tools=(ratchetctl kubectl-ratchet kubectl_complete-ratchet)

# link TARGET NAME: NAME becomes a symbolic link to TARGET, from one moment to the next.
link() {
    local temporary
    temporary=$(dirname "$2")/.$(basename "$2").$$
    ln -s "$1" "$temporary"
    mv -fT "$temporary" "$2"
}

install_programs() {
    local build old name
    build=$(cd "$programs" && find . -type f -not -name .built -print0 | LC_ALL=C sort -z |
        xargs -0 sha256sum | sha256sum | cut -c1-12)
    mkdir -p "$tree" "$destdir$ctldir"
    old=$(readlink "$plugins/ratchet" || true)
    old=${old#ratchet.d/}
    old=${old%/ratchet}
    if [ ! -d "$tree/$build" ]; then
        rm -rf "$tree"/.new.*
        cp -R --no-dereference --preserve=mode,links "$programs" "$tree/.new.$$"
        rm -f "$tree/.new.$$/.built"
        chmod -R u=rwX,go=rX "$tree/.new.$$"
        sync -f "$tree/.new.$$"
        mv -T "$tree/.new.$$" "$tree/$build"
    fi
    # The child first: a new parent never starts an old child.
    link "ratchet.d/$build/ratchet-child" "$plugins/ratchet-child"
    link "ratchet.d/$build/ratchet" "$plugins/ratchet"
    for name in "${tools[@]}"; do
        link "$(realpath -ms --relative-to="$destdir$ctldir" "$tree/$build/$name")" "$destdir$ctldir/$name"
    done
    find "$tree" -mindepth 1 -maxdepth 1 -not -name "$build" -not -name "${old:-$build}" \
        -exec rm -rf {} +
    install_unit
    echo "installed $plugins/ratchet, $plugins/ratchet-child, $destdir$ctldir/ratchetctl"
}

# Where systemd runs, or may once this is an image. It is enabled by whoever wants it.
install_unit() {
    if [ -z "$unitdir" ] || { [ -z "$destdir" ] && [ ! -d /run/systemd/system ]; }; then
        return
    fi
    mkdir -p "$destdir$unitdir"
    sed "s|@BINDIR@|$bindir|" "$(dirname "${BASH_SOURCE[0]}")/$unit" >"$destdir$unitdir/.$unit.$$"
    mv -fT "$destdir$unitdir/.$unit.$$" "$destdir$unitdir/$unit"
    echo "installed $destdir$unitdir/$unit"
}

# Only what is ours: a program of the same name that was put there in another way stays.
uninstall_programs() {
    local name
    for name in "$plugins/ratchet" "$plugins/ratchet-child" "${tools[@]/#/$destdir$ctldir/}"; do
        case $(readlink "$name" || true) in
            *ratchet.d/*) rm -f "$name" ;;
        esac
    done
    rm -rf "$tree"
    if [ -n "$unitdir" ]; then
        rm -f "$destdir$unitdir/$unit"
    fi
}

case $what in
    install) install_programs ;;
    uninstall) uninstall_programs ;;
    *)
        echo "install.sh: unknown: $what" >&2
        exit 2
        ;;
esac
