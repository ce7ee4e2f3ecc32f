"""States as safetensors files in the store, and exports that plain PyTorch can load (formats §3)."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import trainer.exported_measure
import trainer.models
from ledger.atomic import write_atomically
from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, DataError, ResourceError, UsageError
from trainer.commit.states import state_root
from trainer.data.dataset import Dataset
from trainer.engine.state import State, check_state, heldout_loss_bits, heldout_loss_of, step_of
from trainer.models import ModelConfig, PublicConfig
from trainer.program.description import ProgramDescription
from trainer.program.layout import PARAMETER, StateLayout
from trainer.program.task import TaskProgram
from trainer.store import BlobStore

FORMAT = "trainledger/state/1"
_HEADER_ALLOWANCE = 64 * 1024  # of a safetensors file, beyond 512 bytes for each tensor


def state_path(root: bytes) -> str:
    """Where a state lies in a store."""
    return f"states/{root_hex(root)}.safetensors"


def save_state(store: BlobStore, state: State, layout: StateLayout) -> bytes:
    """Store a state under its root and give the root. Safe to repeat; readers never see half a file.

    Raises ResourceError on a full disk, DataError where the store does not answer, ValueError where the state does
    not follow the layout.
    """
    check_state(state, layout)
    root = state_root(state.values())
    if store.cache is not None:
        store.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.cache) as folder:
        local = Path(folder) / "state.safetensors"
        write_state_file(state, local)
        store.put_file(state_path(root), local)
    return root


def write_state_file(state: State, local: Path) -> None:
    """A state as a safetensors file (not atomic; the caller moves it). The same state gives the same bytes."""
    try:
        save_file(dict(state), local, metadata={"format": FORMAT})
    except SafetensorError as error:
        # The package hands on the operating system's reason as text alone.
        if any(reason in str(error) for reason in ("os error 28", "os error 122")):
            raise ResourceError(
                f"The disk is full: {local} cannot be written.",
                remedy="Free some space and run the same command again: it goes on from what was saved.",
            ) from error
        raise DataError(f"The state cannot be written to {local}: {error}.") from error


def keep_state(state: State, root: bytes, cache: Path) -> None:
    """Keeps a state where `load_state` looks for it before it asks a store. Raises ResourceError, DataError."""
    target = cache / state_path(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".kept")
    write_state_file(state, temporary)
    temporary.replace(target)


def read_state_file(local: Path, layout: StateLayout, *, name: str = "") -> State:
    """Read a state file and check names, dtypes and shapes. Raises BlobCorrupt. The root is not checked here."""
    shown = name or str(local)
    try:
        with safe_open(local, framework="pt") as file:
            if file.metadata() != {"format": FORMAT}:
                raise BlobCorrupt(shown, f"its metadata is {file.metadata()!r} and not the format {FORMAT}")
            names = set(file.keys())
            if names != set(layout.names):
                odd = sorted(names.symmetric_difference(layout.names))[:3]
                raise BlobCorrupt(shown, f"tensors are missing or not the program's: {', '.join(odd)}")
            # clone: the file is mapped, and must not be able to change under a running program
            state: State = OrderedDict((n, file.get_tensor(n).clone()) for n in layout.names)
        check_state(state, layout)
    except (SafetensorError, ValueError) as error:
        raise BlobCorrupt(shown, str(error)) from error
    return state


def load_state(
    store: BlobStore,
    root: bytes,
    layout: StateLayout,
    cache: Path | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> State:
    """Fetch a state and check everything: names, dtypes, shapes, root.

    With `cache`, a folder, the file is kept there under the same path and checked again at each call; a bad copy is
    removed, so that the same call fetches it again. Raises BlobMissing, BlobCorrupt, ResourceError, DataError.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(dir=store.cache) as folder:
            return _load(store, root, layout, Path(folder) / "state.safetensors", progress)
    local = cache / state_path(root)
    if local.exists():
        try:
            return _verified(local, root, layout)
        except BlobCorrupt:
            local.unlink()
    return _load(store, root, layout, local, progress)


def _load(
    store: BlobStore,
    root: bytes,
    layout: StateLayout,
    local: Path,
    progress: Callable[[int, int], None] | None,
) -> State:
    limit = layout.total_bytes + 512 * len(layout) + _HEADER_ALLOWANCE
    store.get_file(state_path(root), local, max_bytes=limit, progress=progress)
    try:
        return _verified(local, root, layout)
    except BlobCorrupt:
        local.unlink(missing_ok=True)
        raise


def _verified(local: Path, root: bytes, layout: StateLayout) -> State:
    state = read_state_file(local, layout, name=state_path(root))
    actual = state_root(state.values())
    if actual != root:
        raise BlobCorrupt(state_path(root), f"its tensors have the root {root_hex(actual)}")
    return state


_EXPORT_BEGINS = "A checkpoint of the trainledger state 0x"
_EXPORT_README = """\
A checkpoint of the trainledger state {root}, after {step} optimizer steps.

  model.safetensors   parameters under PyTorch's own names
  model/              the model's source: needs torch alone
  config.json         architecture and sizes, and the held-out loss
  tokenizer.json      a file of the `tokenizers` package, or the word byte: a token is a byte of UTF-8
  heldout.bin         held-out tokens, uint16 little-endian

Measure the held-out loss again, with torch and safetensors installed:

  python measure.py

It prints the loss in plain float32. The state's own was computed in exact arithmetic, where operands of products are
rounded to 13 bits, so the two agree in their first three or four digits; measure.py says how closely, and exits with 1
where they differ by more than {apart:.1%}.
"""

_PUBLIC_README = """\
A checkpoint of the trainledger state {root}, after {step} optimizer steps.

  model.safetensors   parameters under the names of transformers' {name}; a tied one stands once
  config.json         the task's sizes of it ({kind}), and the held-out loss
  tokenizer.json      a file of the `tokenizers` package, or the word byte: a token is a byte of UTF-8
  heldout.bin         held-out tokens, uint16 little-endian

Load it into a {name} of the same sizes with `load_state_dict(…, strict=False)`.
"""
_PUBLIC_CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "smollm2": "LlamaForCausalLM"}


def export_checkpoint(program: TaskProgram, dataset: Dataset, state: State, directory: Path) -> Path:
    """Write a checkpoint that works without trainledger: weights, model source, tokenizer, held-out windows.

    A public model's source is in its own package, so its export has none, and no measure.py.

    Args:
        directory: made where it is missing; files of an earlier export in it are replaced.

    Returns:
        `directory`. `python measure.py` in it measures the held-out loss in plain float32, and fails where the state's,
        which exact arithmetic gave, is not the same up to rounding (`exported_measure.MOST_APART`).

    Raises:
        UsageError: the folder holds something else. ResourceError: the disk is full.
        SpecificationError: the program does not say which model it was traced from.
    """
    check_state(state, program.layout)
    description = ProgramDescription.from_mapping(program.description, path="description")
    if directory.exists() and not _may_be_written(directory):
        raise UsageError(f"{directory} is no empty folder and holds no export.", remedy="Name another with --to.")
    root = root_hex(state_root(state.values()))
    directory.mkdir(parents=True, exist_ok=True)
    # First: whatever a killed export left can be told from another's files by it.
    write_atomically(directory / "README", _readme(description.model, root=root, step=step_of(state)).encode())
    (directory / "config.json").unlink(missing_ok=True)
    weights = {n.removeprefix(PARAMETER): t for n, t in state.items() if n.startswith(PARAMETER)}
    temporary = directory / ".model.safetensors.part"
    save_file(weights, temporary, metadata={"format": "pt"})
    temporary.replace(directory / "model.safetensors")
    if not isinstance(description.model, PublicConfig):
        _write_sources(directory)
    needed = description.evaluation_windows * description.context + 1
    write_atomically(directory / "heldout.bin", np.ascontiguousarray(dataset.heldout[:needed]).tobytes())
    write_atomically(directory / "tokenizer.json", dataset.tokenizer_file)
    described = description.to_mapping()
    config = {
        "state_root": root,
        "dataset_root": root_hex(dataset.root),
        "step": step_of(state),
        "heldout_loss": heldout_loss_of(state) if np.isfinite(heldout_loss_of(state)) else None,
        "heldout_loss_bits": heldout_loss_bits(state),
        **{
            name: described[name]
            for name in ("model", "vocabulary", "context", "evaluation_windows", "evaluation_batch")
        },
    }
    # Last: it marks the folder as a whole export.
    write_atomically(directory / "config.json", json.dumps(config, indent=2).encode() + b"\n")
    return directory


def _readme(model: ModelConfig, *, root: str, step: int) -> str:
    if isinstance(model, PublicConfig):
        return _PUBLIC_README.format(root=root, step=step, kind=model.kind, name=_PUBLIC_CLASSES[model.kind])
    return _EXPORT_README.format(root=root, step=step, apart=trainer.exported_measure.MOST_APART)


def _write_sources(directory: Path) -> None:
    """The model's source, and the script that measures it."""
    (directory / "model").mkdir(exist_ok=True)
    for source in sorted(Path(trainer.models.__file__).parent.glob("*.py")):
        shutil.copyfile(source, directory / "model" / source.name)
    script = Path(trainer.exported_measure.__file__).read_text().replace("from trainer.models", "from model")
    write_atomically(directory / "measure.py", script.encode())


def _may_be_written(directory: Path) -> bool:
    """Whether a path is an empty folder, or one that an earlier export began."""
    if not directory.is_dir():
        return False
    try:
        return (directory / "README").read_text().startswith(_EXPORT_BEGINS)
    except (OSError, UnicodeDecodeError):
        return not any(directory.iterdir())
