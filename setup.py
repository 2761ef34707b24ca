"""Builds pyshmkey._core; everything else is in pyproject.toml.

PYSHMKEY_BUILD selects the build: release (default), debug (assertions, no
optimisation), asan, ubsan or tsan. A sanitizer's runtime must be loaded before
Python: LD_PRELOAD="$(gcc -print-file-name=libasan.so)" python ...
"""

import os
import sys
import sysconfig
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

BUILDS = {
    "release": ["-O3"],
    "debug": ["-O0", "-g3", "-UNDEBUG"],
    "asan": ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", "-fsanitize=address"],
    "ubsan": ["-O1", "-g", "-UNDEBUG", "-fsanitize=undefined", "-fno-sanitize-recover=all"],
    "tsan": ["-O1", "-g", "-UNDEBUG", "-fsanitize=thread"],
}

build = os.environ.get("PYSHMKEY_BUILD") or "release"
if build not in BUILDS:
    sys.exit(f"PYSHMKEY_BUILD={build} is unknown: one of {', '.join(BUILDS)}")
if sys.platform != "linux" or sys.byteorder != "little" or sys.maxsize < 2**63 - 1:
    sys.exit("pyshmkey needs Linux on a 64-bit little-endian processor")
if not Path(sysconfig.get_path("include"), "Python.h").exists():
    sys.exit(
        "pyshmkey needs Python's C headers (Python.h); on Debian and Ubuntu: "
        f"apt install python3-dev, or python3.{sys.version_info.minor}-dev for this Python"
    )

core = Extension(
    "pyshmkey._core",
    sources=sorted(glob("csrc/binding/*.c") + glob("csrc/core/*.c")),
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", *BUILDS[build]],
    # Our own functions, even where a program has loaded libshmkey.so as well.
    extra_link_args=["-Wl,-Bsymbolic", *(f for f in BUILDS[build] if "sanitize=" in f)],
)

# Compile anew each time: whether an object is up to date can't be told from dates
# alone when the kind of build may differ.
setup(ext_modules=[core], options={"build_ext": {"force": "1"}})
