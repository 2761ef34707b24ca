"""python -m pyshmkey.cli, the same as shmkey."""

from pyshmkey.cli import main

main()
