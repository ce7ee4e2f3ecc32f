from typing import Any

import numpy as np
import pytest
import torch
from small_programs import KINDS, TEXT, Runs, small

from trainer.native import CompilerError
from trainer.native.cuda import find_nvrtc
from trainer.program.description import ProgramDescription


def _has_nvrtc() -> bool:
    try:
        return find_nvrtc((9, 0)).architecture == 90
    except CompilerError:
        return False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what this machine cannot run: pytest counts it as deselected. tools/gpu_check.sh runs it all."""
    tries = {"gpu": torch.cuda.is_available, "nvrtc": _has_nvrtc}
    needed = {name for item in items for name in tries if item.get_closest_marker(name)}
    absent = [name for name in sorted(needed) if not tries[name]()]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in absent)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _parameter(kind: str, options: dict[str, Any]) -> Any:
    # One recurrent cell stands for all where time is short; each is traced and run elsewhere, too.
    heavy = [pytest.mark.full] if options.get("cell") in ("rnn", "gru") else []
    return pytest.param((kind, options), marks=heavy, id="-".join([kind, *(f"{k}={v}" for k, v in options.items())]))


@pytest.fixture(params=[_parameter(*one) for one in KINDS])
def description(request: pytest.FixtureRequest) -> ProgramDescription:
    kind, model = request.param
    return small(kind, model=model)


@pytest.fixture(scope="session")
def runs() -> Runs:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    return Runs(train=tokens[:9000], heldout=tokens[9000:])
