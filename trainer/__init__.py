"""The training side of trainledger: data, models, programs, deterministic segments, worker and verifier."""
