from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Stage, open_stage


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("stage") / "home") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_workers_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test's workers do not outlive it."""
    yield
    if "stage" in request.fixturenames:
        request.getfixturevalue("stage").close()


@pytest.fixture
def own_stage(tmp_path: Path) -> Iterator[Stage]:
    """One for each test: seats that nobody audits for any more would be drawn, too, and cheats lose their stake."""
    with open_stage(tmp_path / "home") as opened:
        yield opened
