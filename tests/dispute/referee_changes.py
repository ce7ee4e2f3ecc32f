"""True evidence with one thing changed, in every way that could be of use to a liar."""

import random
from collections.abc import Iterator
from dataclasses import replace

from referee_world import NO_RECORD

from ledger.disputes.moves import Evidence, Record, Source

WORD = bytes(range(32))


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def changed_words(words: tuple[bytes, ...], rng: random.Random) -> Iterator[tuple[bytes, ...]]:
    """One changed, one more at either end, one fewer, two exchanged."""
    yield (*words, WORD)
    yield (WORD, *words)
    if words:
        at = rng.randrange(len(words))
        yield (*words[:at], changed_bytes(words[at], rng), *words[at + 1 :])
        yield words[:-1]
        if words[0] != words[-1]:
            yield (words[-1], *words[1:-1], words[0])


def changed_sources(one: Source, rng: random.Random) -> Iterator[Source]:
    """Each field changed in every way that could be of use to a liar."""
    for number in (one.number + 1, one.number ^ 0x80000000, 0xFFFFFFFF):
        yield replace(one, number=number)
    for dtype in range(11):
        if dtype != one.dtype:
            yield replace(one, dtype=dtype)
    for size in (0, 1, one.size - 1, one.size + 1, one.size + 1024, 2 * one.size, 2**64 - 1):
        if size != one.size:
            yield replace(one, size=size)
    # The same path in a tree with more leaves than there are, too.
    for first in (one.first_chunk + 1, one.first_chunk + 2 ** len(one.siblings), one.first_chunk ^ 2**63, 2**64 - 1):
        yield replace(one, first_chunk=first)
    yield replace(one, chunks=changed_bytes(one.chunks, rng))
    yield replace(one, chunks=changed_bytes(one.chunks, rng))
    for chunks in (b"", one.chunks[:-1], one.chunks + b"\0", one.chunks + bytes(1024), bytes(1024) + one.chunks):
        yield replace(one, chunks=chunks)
    yield from (replace(one, siblings=siblings) for siblings in changed_words(one.siblings, rng))
    yield from (replace(one, path=path) for path in changed_words(one.path, rng))


def changed_evidence(evidence: Evidence, rng: random.Random) -> Iterator[Evidence]:
    """Everything but the record, which the caller proves."""
    sources = evidence.sources
    for place, one in enumerate(sources):
        for other in changed_sources(one, rng):
            yield replace(evidence, sources=(*sources[:place], other, *sources[place + 1 :]))
    yield replace(evidence, sources=(*sources, sources[0] if sources else Source(0, 1, 4, 0, bytes(1024), (), ())))
    if sources:
        yield replace(evidence, sources=sources[:-1])
        if sources[0] != sources[-1]:
            yield replace(evidence, sources=(sources[-1], *sources[1:-1], sources[0]))
    if evidence.other == NO_RECORD:
        yield replace(evidence, other=Record(b"\1", ()))
        yield replace(evidence, other=Record(b"", (WORD,)))
    else:
        data, siblings = evidence.other.data, evidence.other.siblings
        yield replace(evidence, other=NO_RECORD)
        for record in (changed_bytes(data, rng), data[:-1], data + b"\0", data[32:], b""):
            yield replace(evidence, other=Record(record, siblings))
        yield from (replace(evidence, other=Record(data, other)) for other in changed_words(siblings, rng))
