"""check_wheel.py: whether the pyshmkey that is installed works, without its sources.

cibuildwheel and tests/test_wheel.py run it from another folder.
"""

import ctypes
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pyshmkey
from pyshmkey import KeyStore

WORKER = """
import sys
from pyshmkey import KeyStore
with KeyStore.from_id(int(sys.argv[1])) as store:
    print(store.get_key("client", "server").hex())
    store.put("client", "worker", bytes.fromhex(sys.argv[2]))
"""


def check_two_processes() -> None:
    """Each reads what the other wrote."""
    there, back = os.urandom(32), os.urandom(32)
    with KeyStore.create(None, 100) as store:
        try:
            store.put("client", "server", there)
            worker = [sys.executable, "-Ic", WORKER, str(store.id), back.hex()]
            assert subprocess.check_output(worker, text=True, timeout=60).strip() == there.hex()
            assert store.get_key("client", "worker") == back
        finally:
            store.destroy()


def check_c_library() -> None:
    library = ctypes.CDLL(pyshmkey.get_library())
    library.shk_version.restype = ctypes.c_char_p
    assert library.shk_version().decode() == pyshmkey.__version__
    assert Path(pyshmkey.get_library(static=True)).read_bytes().startswith(b"!<arch>\n")
    header = Path(pyshmkey.get_include(), "shk.h").read_text()
    assert f'#define SHK_VERSION "{pyshmkey.__version__}"' in header


def check_command() -> None:
    """It works, or says which extra brings what it needs."""
    command = [str(Path(sysconfig.get_path("scripts"), "shmkey")), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 0:
        assert "Usage: shmkey" in done.stdout
    else:
        assert done.stderr.strip().endswith("pip install 'pyshmkey[cli]'"), done.stderr


def main() -> None:
    package = Path(pyshmkey.__file__).parent
    assert package.parent.samefile(sysconfig.get_path("platlib")), f"{package} is not installed"
    check_two_processes()
    check_c_library()
    check_command()
    print(f"pyshmkey {pyshmkey.__version__} works in {package}")


if __name__ == "__main__":
    main()
