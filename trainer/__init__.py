"""The training side of trainledger: data, models, programs, deterministic segments, worker and verifier."""

import os

# Here, because OpenMP reads it once, when torch is loaded. By default its threads spin while they wait for each other;
# where processes outnumber cores that starves the very threads they wait for: two workers on two cores took more than
# a second a step instead of 56 ms. Waiting asleep costs a lone process next to nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
