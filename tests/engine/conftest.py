import numpy as np
import pytest
from small_programs import KINDS, TEXT, Runs, small

from trainer.program.description import ProgramDescription


@pytest.fixture(params=KINDS, ids=lambda p: "-".join([p[0], *(f"{k}={v}" for k, v in p[1].items())]))
def description(request: pytest.FixtureRequest) -> ProgramDescription:
    kind, model = request.param
    return small(kind, model=model)


@pytest.fixture(scope="session")
def runs() -> Runs:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    return Runs(train=tokens[:9000], heldout=tokens[9000:])
