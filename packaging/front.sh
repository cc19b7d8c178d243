#!/bin/bash
# Compiles the front with the distribution's compiler.
#
#   front.sh release|sanitized OUTPUT [further options for the compiler]
#   front.sh lint
#   front.sh libc      the distribution's package that the C library of a release comes from
#
# lint: the compiler's analyzer, cppcheck and clang-tidy, as far as they are installed.
# release: static, so that it starts without a dynamic linker, which takes as long as everything else together. With
#   musl where that is installed: glibc looks at the processor's features before main(), and on a virtual machine the
#   host answers each of these questions, which takes 0.3 ms in all.
# sanitized: for the tests, with the address and the undefined behaviour sanitizer.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kind=$1 output=${2:-}
shift $(($# < 2 ? $# : 2))

warnings=(-std=c11 -Wall -Wextra -Werror -Wformat=2 -Wshadow -Wconversion -Wvla -Wwrite-strings)

# Whatever the machine has looks at it.
if [ "$kind" = lint ]; then
    if command -v "${CC:-cc}" >/dev/null; then
        analyzer=$("${CC:-cc}" --version | grep -qi clang || echo -fanalyzer)
        "${CC:-cc}" "${warnings[@]}" -O2 $analyzer -c -o /dev/null "$root/front/front.c"
    fi
    if command -v cppcheck >/dev/null; then
        cppcheck --quiet --std=c11 --enable=warning,portability,performance --error-exitcode=1 "$root/front/front.c"
    fi
    if command -v clang-tidy >/dev/null; then
        clang-tidy --quiet --warnings-as-errors='*' "$root/front/front.c" -- -std=c11
    fi
    exit
fi

# The folder of musl, if a program of its own can be linked with it.
musl=
if [ "${CC:-musl-gcc}" = musl-gcc ] && command -v musl-gcc >/dev/null; then
    for start in /usr/lib/"$(uname -m)"-linux-musl/rcrt1.o /usr/lib/musl/lib/rcrt1.o; do
        if [ -e "$start" ]; then
            musl=$(dirname "$start")
            break
        fi
    done
fi

if [ "$kind" = libc ]; then
    echo "$([ -n "$musl" ] && echo musl-dev || echo libc6-dev)"
    exit
fi

source=("$root/front/front.c")
case $kind in
    release)
        options=(-O2 -fstack-protector-strong -fstack-clash-protection -fPIE -Wl,-z,relro,-z,now,-z,noexecstack -s)
        if [ -n "$musl" ]; then
            CC=musl-gcc
            # musl-gcc does not know -static-pie: these are its words.
            options+=(-static -nostartfiles -Wl,-pie,--no-dynamic-linker)
            source=("$musl/rcrt1.o" "$musl/crti.o" "${source[@]}" "$musl/crtn.o")
        else
            options+=(-D_FORTIFY_SOURCE=2 -static-pie)
        fi ;;
    sanitized)
        options=(-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all) ;;
    *)
        echo "front.sh: unknown: $kind" >&2
        exit 2 ;;
esac
mkdir -p "$(dirname "$output")"
"${CC:-cc}" "${warnings[@]}" "${options[@]}" "$@" -o "$output.new" "${source[@]}"
mv -f "$output.new" "$output"
