"""Where the C library lies that C programs share stores with.

It is built from the same sources as the extension, which holds a copy of its own.
"""

from pathlib import Path

__all__ = ["get_include", "get_library"]

_HERE = Path(__file__).parent


def get_include() -> str:
    """The folder of shk.h, the C library's header."""
    return str(_existing("include/shk.h").parent)


def get_library(*, static: bool = False) -> str:
    """The path of the C library: libshmkey.so.0, or with static=True libshmkey.a.

    This compiles a program that needs no more of Python afterwards::

        c=$(python -c "from pyshmkey import *; print('-I'+get_include(), get_library(static=True))")
        cc -o program program.c $c

    With the shared library it needs to be told where that is, which
    ``-Wl,-rpath,"$(dirname PATH)"`` does. Beside it lies the libshmkey.so that -lshmkey finds.
    """
    return str(_existing("lib/libshmkey.a" if static else "lib/libshmkey.so.0"))


def _existing(name: str) -> Path:
    path = _HERE / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, which building pyshmkey makes: install it again "
            "(pip install --force-reinstall pyshmkey, or pip install -e . in its sources)"
        )
    return path
