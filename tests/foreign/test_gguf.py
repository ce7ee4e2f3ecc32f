"""Reading GGUF files: every tensor type against numbers worked out by hand, and files that are broken."""

import struct
from pathlib import Path

import pytest
import torch

from ledger.errors import BlobCorrupt, SpecificationError
from trainer.foreign import GgufFile


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset)


HALVES = struct.pack("<2e", 0.5, -3.0)  # scale and least value
FOUR_BITS = HALVES + bytes(low | (15 - low) << 4 for low in range(16))
EIGHT_BITS = struct.pack("<e", 0.25) + bytes(number % 256 for number in range(-16, 16))
PARTS = {
    "plain": ((2, 3), 0, struct.pack("<6f", 1.0, -2.5, 0.0, -0.0, 1e-40, 3.0)),
    "half": ((4,), 1, struct.pack("<4e", 1.0, -0.5, 65504.0, 6e-8)),
    "four": ((2, 32), 3, FOUR_BITS * 2),
    "eight": ((32,), 8, EIGHT_BITS),
}
METADATA = (
    text("general.name") + struct.pack("<I", 8) + text("small"),
    text("sizes") + struct.pack("<IIQ3i", 9, 5, 3, 1, -2, 3),
    text("on") + struct.pack("<I?", 7, True),
    text("rate") + struct.pack("<If", 6, 0.5),
)


def content(parts: dict[str, tuple[tuple[int, ...], int, bytes]] = PARTS, version: int = 3) -> bytes:
    tables, data = b"", b""
    for name, (shape, kind, given) in parts.items():
        data += bytes(-len(data) % 32)
        tables += entry(name, shape, kind, len(data))
        data += given
    head = b"GGUF" + struct.pack("<IQQ", version, len(parts), len(METADATA)) + b"".join(METADATA) + tables
    return head + bytes(-len(head) % 32) + data


def opened(folder: Path, data: bytes) -> GgufFile:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return GgufFile(path)


def test_gguf_file_gives_metadata(tmp_path: Path) -> None:
    assert opened(tmp_path, content()).metadata == {
        "general.name": "small",
        "sizes": [1, -2, 3],
        "on": True,
        "rate": 0.5,
    }


def test_tensor_gives_the_numbers_of_each_type(tmp_path: Path) -> None:
    file = opened(tmp_path, content())
    assert file.names == list(PARTS)
    rising, falling = (torch.arange(16.0) * 0.5 - 3, torch.arange(15.0, -1.0, -1.0) * 0.5 - 3)
    expected = {
        "plain": torch.tensor([[1.0, -2.5, 0.0], [-0.0, 1e-40, 3.0]]),
        "half": torch.tensor([1.0, -0.5, 65504.0, 6e-8]).half().float(),
        "four": torch.cat((rising, falling)).expand(2, 32),
        "eight": torch.arange(-16.0, 16.0) * 0.25,
    }
    for name, values in expected.items():
        found = file.tensor(name)
        assert found.dtype == torch.float32
        assert torch.equal(found.view(torch.int32), values.contiguous().view(torch.int32)), name


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b"GGML" + content()[4:], "does not begin as a GGUF file does"),
        (content(version=2), "version 2"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0), "a table of it has 4611686018427387904 entries"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + b"key", "ends too early"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "holds lists"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"\xff", "not UTF-8"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.alignment") + struct.pack("<II", 4, 0),
            "alignment is 0",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + entry("deep", (1,) * 5, 0, 0), "deep has 5 dimensions"),
    ],
)
def test_gguf_file_refuses_what_is_none(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(BlobCorrupt, match=says) as caught:
        opened(tmp_path, data)
    assert caught.value.path == "model.gguf"


def test_gguf_file_refuses_every_cut_of_its_tables(tmp_path: Path) -> None:
    whole = content()
    tables = whole.index(text("eight")) + len(entry("eight", (32,), 8, 0))
    for length in range(1, tables):
        with pytest.raises(BlobCorrupt):
            opened(tmp_path, whole[:length])


def test_tensor_refuses_what_is_missing_cut_or_of_other_types(tmp_path: Path) -> None:
    with pytest.raises(BlobCorrupt, match="it has no tensor none"):
        opened(tmp_path, content()).tensor("none")
    with pytest.raises(BlobCorrupt, match="eight does not fit"):
        opened(tmp_path, content()[:-1]).tensor("eight")
    with pytest.raises(BlobCorrupt, match="odd does not fit"):
        opened(tmp_path, content({"odd": ((33,), 8, EIGHT_BITS * 2)})).tensor("odd")
    with pytest.raises(BlobCorrupt, match="huge does not fit"):
        opened(tmp_path, content({"huge": ((2**60, 2**60), 0, b"")})).tensor("huge")
    with pytest.raises(SpecificationError, match=r"odd of model\.gguf has the GGUF type 14") as caught:
        opened(tmp_path, content({"odd": ((32,), 14, EIGHT_BITS)})).tensor("odd")
    assert "F32, F16, Q4_1, Q8_0" in caught.value.remedy
