"""A wall clock that is wrong, for the programs of one node. The machine's own is never touched.

Time namespaces (`unshare --time`) have a monotonic clock of their own but no wall clock, so the
programs' C library is asked to lie: a small library, loaded before it (`LD_PRELOAD`), adds the
seconds that stand in a file. It is compiled when a world is made. On a machine without a compiler
only programs that an interpreter runs get their wrong clock, from a module that Python imports.
"""

from __future__ import annotations

import os
import shutil
import subprocess

_FILE = "RATCHET_FAULTS_CLOCK"

_LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void)
{
    char text[32] = "";
    const char *path = getenv("RATCHET_FAULTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    if (read(file, text, sizeof text - 1) < 0)
        text[0] = 0;
    close(file);
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*original)(clockid_t, struct timespec *);
    if (!original)
        original = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = original(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += jump();
    return failed;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
"""

_MODULE = f"""
import os
import time

def _jumped(clock, unit):
    def read():
        try:
            with open(os.environ[{_FILE!r}]) as file:
                return clock() + int(file.read()) * unit
        except (KeyError, OSError, ValueError):
            return clock()
    return read

time.time = _jumped(time.time, 1.0)
time.time_ns = _jumped(time.time_ns, 10**9)
"""


def make(directory: str) -> dict[str, str]:
    """Make what lies about the time; the environment in which it is used."""
    os.makedirs(directory, exist_ok=True)
    compiler = shutil.which("cc")
    if compiler is None:
        with open(os.path.join(directory, "sitecustomize.py"), "w", encoding="utf-8") as file:
            file.write(_MODULE)
        return {"PYTHONPATH": directory}
    library = os.path.join(directory, "clock.so")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, "-x", "c", "-", "-ldl"]
    subprocess.run(command, input=_LIBRARY, text=True, check=True)
    return {"LD_PRELOAD": library}


def using(lies: dict[str, str], seconds: str) -> dict[str, str]:
    """The environment of a program whose clock is wrong by what stands in the file `seconds`."""
    return {**lies, _FILE: seconds}
