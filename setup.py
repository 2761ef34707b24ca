"""Builds pyshmkey._core and the C library; everything else is in pyproject.toml.

PYSHMKEY_BUILD selects the build: release (default), debug (assertions, no
optimisation), asan, ubsan or tsan. A sanitizer's runtime must be loaded before
Python: LD_PRELOAD="$(gcc -print-file-name=libasan.so)" python ...
"""

import os
import shutil
import sys
import sysconfig
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

BUILDS = {
    # Without debug information, which Python asks for: it is three quarters of the files, and
    # tells where they were built. Symbols stay, for backtraces and profiles.
    "release": ["-O3", "-g0"],
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

SONAME = "libshmkey.so.0"
INCLUDE, LIB = "pyshmkey/include", "pyshmkey/lib"

FLAGS = ["-std=gnu11", "-fvisibility=hidden", "-pthread"]

core = sorted(glob("csrc/core/*.c"))
link_args = ["-pthread", *(flag for flag in BUILDS[build] if "sanitize=" in flag)]
extension = Extension(
    "pyshmkey._core",
    sources=sorted(glob("csrc/binding/*.c")) + core,
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=[*FLAGS, "-Wall", "-Wextra", *BUILDS[build]],
    # Our own functions, even where a program has loaded libshmkey.so as well. libc's are bound at
    # the import, which knows that it takes long, and not by the first open; then nobody writes
    # where they are bound.
    extra_link_args=["-Wl,-Bsymbolic", "-Wl,-z,relro,-z,now", *link_args],
)


class BuildWithLibrary(build_ext):
    """Makes the C library, for get_include() and get_library(), of the extension's objects."""

    def build_extensions(self) -> None:
        compiler = self.compiler.compiler_so[0]
        if shutil.which(compiler) is None:
            sys.exit(
                f"pyshmkey needs a C compiler, and there is no {compiler}; on Debian and Ubuntu: "
                "apt install gcc libc6-dev"
            )
        # Where this Python lies is no place of the library's.
        self.compiler.linker_so = [
            option for option in self.compiler.linker_so if not option.startswith("-Wl,-rpath")
        ]
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        super().build_extension(ext)
        objects = self.compiler.object_filenames(core, output_dir=self.build_temp)
        include, lib = Path(self.build_lib, INCLUDE), Path(self.build_lib, LIB)
        self.mkpath(str(include))
        self.copy_file("csrc/core/shk.h", str(include))
        self.compiler.create_static_lib(objects, "shmkey", output_dir=str(lib))
        options = [f"-Wl,-soname,{SONAME}", *link_args]
        self.compiler.link_shared_object(objects, str(lib / SONAME), extra_postargs=options)
        # What -lshmkey finds: a linker script, as a wheel can't hold a symbolic link.
        (lib / "libshmkey.so").write_text(f"INPUT({SONAME})\n")

    def copy_extensions_to_source(self) -> None:  # for an editable install
        super().copy_extensions_to_source()
        for folder in INCLUDE, LIB:
            self.copy_tree(str(Path(self.build_lib, folder)), folder)


# Compile anew each time: whether an object is up to date can't be told from dates
# alone when the kind of build may differ.
setup(
    ext_modules=[extension],
    cmdclass={"build_ext": BuildWithLibrary},
    options={"build_ext": {"force": "1"}},
)
