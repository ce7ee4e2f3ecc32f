"""`python -m trainer.fleet.child [--ranks N] WORDS…`: a trainledger command that ends when its standard input does.

A pipe from whoever started it closes however that ends, kill -9 too; then the command gets SIGTERM, so that no worker
is left that nobody watches. With --ranks, torchrun runs the command on so many ranks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

# Seconds until a command that heeds no SIGTERM is killed.
PATIENCE = 40.0
# Times that torchrun starts all ranks again after it lost one.
_RESTARTS = 3


def end_with_input() -> None:
    """Waits for the end of standard input, then ends this process."""
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


def run(words: list[str]) -> None:
    """Runs a command, on several ranks if the words begin with --ranks N."""
    if words[:1] != ["--ranks"]:
        sys.argv = ["trainledger", *words]
        from trainer.cli.main import main

        main()
        return
    from torch.distributed.run import main as torchrun

    options = ["--standalone", f"--nproc-per-node={words[1]}", f"--max-restarts={_RESTARTS}"]
    torchrun([*options, "-m", "trainer.fleet.child", *words[2:]])


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    run(sys.argv[1:])
