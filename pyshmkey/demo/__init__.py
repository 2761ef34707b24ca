"""The demo: a key server that is killed again and again beside workers that never wait for it.

    client --- keys over a Unix socket --- server ---- put, revoke ----> KeyStore
       |                                     |                              |
       |                                  log, fsync                record (read-only)
       |                                     |                              |
       +--- messages with key id and MAC ----|-------------------------> worker
                                             v                              |
                                           audit <------- verdicts ---------+

Read it in this order: wire (what travels), server (writes the store), log (what the server
promises), worker (reads the store), client, audit (was every verdict right?), director (starts,
and kills), home (leaves nothing behind), view (what one sees).
"""

from pyshmkey.demo.director import Options, Report, run

__all__ = ["Options", "Report", "run"]
