"""A fleet's workers on a Ray cluster: placed where there is room, asked where they stand, placed anew where lost.

Ray is an optional package, imported here alone. Each worker has an actor, a `WorkerHost`, which Ray starts again, on
another machine if it must, when its process or its machine is gone.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ledger.errors import ResourceError, ToolMissing, TrainledgerError, UsageError
from trainer.fleet.host import WorkerHost
from trainer.fleet.orders import ENDED, Order, Report, State

if TYPE_CHECKING:
    from types import ModuleType

# Seconds: that a round of questions may take; without a word from a worker that has been placed until it is given up.
_ASK, _PATIENCE = 2.0, 300.0


@dataclasses.dataclass
class _Member:
    """A worker as the fleet knows it.

    Attributes:
        asked: the question that is under way. seen: number of the last news. placed: incarnations so far.
        before: rounds submitted and wei earned by those before this one. lost_at: since when there is no answer.
    """

    order: Order
    actor: Any
    report: Report
    asked: Any = None
    seen: int = 0
    placed: int = 0
    before: tuple[int, int] = (0, 0)
    lost_at: float | None = None


class Cluster:
    """A Ray cluster: one that runs, or one of this machine alone, which ends with the block.

    Example::

        with Cluster(None) as cluster:
            fleet = cluster.place(orders, cpus=1.0, gpus=0.0)
    """

    def __init__(self, address: str | None) -> None:
        """Joins the cluster at an address (host:port, or "auto"); None starts one here.

        Raises:
            ToolMissing: Ray is not installed. ResourceError: it does not start, or cannot be reached.
        """
        self._ray = _find_ray()
        # Ray would tell its makers of each cluster that it starts.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            self._ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception as error:  # Ray raises whatever went wrong in its own processes
            raise ResourceError(
                f"Ray did not start{'' if address is None else f' or answer at {address}'}: {error}.",
                remedy="Start a cluster with `ray start --head`, and name it with --ray-address, or leave that out.",
            ) from error

    @property
    def machines(self) -> int:
        """How many are in the cluster."""
        return sum(bool(node["Alive"]) for node in self._ray.nodes())

    @property
    def cpus(self) -> float:
        """Processors of the whole cluster."""
        return float(self._ray.cluster_resources().get("CPU", 0.0))

    def place(self, orders: Sequence[Order], *, cpus: float, gpus: float) -> Fleet:
        """Starts workers, each where so many processors and GPUs are free; the others wait until there are.

        Raises:
            UsageError: the cluster has not so many, even when it does nothing else.
        """
        there = self._ray.cluster_resources()
        for name, one in (("CPU", cpus), ("GPU", gpus)):
            if one * len(orders) > there.get(name, 0.0) + 1e-6:
                raise UsageError(
                    f"{len(orders)} workers of {one:g} {name}s each need {one * len(orders):g}, and the Ray cluster "
                    f"has {there.get(name, 0.0):g}.",
                    remedy=f"Give fewer --workers, or less with --{name.lower()}s (parts of one are fine).",
                )
        host = self._ray.remote(WorkerHost)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "scheduling_strategy": "SPREAD"}
        return Fleet(
            self._ray, [_Member(order, host.options(**options).remote(order), _unplaced(order)) for order in orders]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()


class Fleet:
    """Workers that a cluster runs."""

    def __init__(self, ray: ModuleType, members: Sequence[_Member]) -> None:
        self._ray, self._members = ray, members

    @property
    def reports(self) -> list[Report]:
        """Where each worker stood when it was last heard of; `news` are those of the last look."""
        return [member.report for member in self._members]

    @property
    def placements(self) -> list[int]:
        """How often each worker was given a machine."""
        return [member.placed for member in self._members]

    @property
    def ended(self) -> bool:
        """Whether no worker runs any more."""
        return all(member.report.state in ENDED for member in self._members)

    def look(self) -> None:
        """Asks all workers where they stand, and takes the answers that come within a moment."""
        for member in self._members:
            member.report = dataclasses.replace(member.report, news=())
            if member.asked is None and member.report.state not in ENDED:
                member.asked = member.actor.report.remote(member.seen)
        asked = {member.asked: member for member in self._members if member.asked is not None}
        ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=_ASK) if asked else ([], [])
        for answer in ready:
            asked[answer].asked = None
            self._take(asked[answer], answer)

    def stop(self) -> None:
        """Has all workers end with a snapshot, which `look` shows."""
        for member in self._members:
            if member.placed:
                member.actor.stop.remote()
            else:
                self._ray.kill(member.actor)
                member.report, member.asked = dataclasses.replace(member.report, state="stopped"), None

    def _take(self, member: _Member, answer: Any) -> None:
        try:
            report: Report = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self._miss(member, error)
            return
        if report.incarnation != member.report.incarnation:
            if member.seen:  # another process numbers its news anew
                member.seen = 0
                return
            member.placed += 1
            member.before = (member.report.submitted, member.report.earned)
        member.lost_at = None
        member.seen = max([member.seen, *(number for number, _ in report.news)])
        rounds, wei = member.before
        member.report = dataclasses.replace(report, submitted=rounds + report.submitted, earned=wei + report.earned)

    def _miss(self, member: _Member, error: Exception) -> None:
        """Its actor is gone. Ray starts it again, so it is asked again, for a while."""
        now = time.monotonic()
        member.lost_at = now if member.lost_at is None else member.lost_at
        state: State = "restarting"
        text = "Ray lost the process that watches the worker, and starts it again."
        if now - member.lost_at > _PATIENCE:
            state, text = "failed", f"Ray could not start it again: {error}"
        member.report = dataclasses.replace(
            member.report, state=state, problem=text, process=None, progress=None, news=()
        )


def _unplaced(order: Order) -> Report:
    return Report(name=order.name, incarnation="", machine="", state="placing")


def _find_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise ToolMissing(
            f"Ray, which runs fleets, is not installed ({error}).",
            remedy="Run: pip install 'trainledger[fleet]' (about 250 MB).",
        ) from None
    return ray


class FleetFailed(TrainledgerError):
    """Workers ended that starting them again would not mend. `failed` are their reports."""

    def __init__(self, failed: Sequence[Report]) -> None:
        words = " ".join(f"{report.name}: {report.problem}" for report in failed)
        super().__init__(f"{len(failed)} worker{'s' * (len(failed) != 1)} of the fleet failed. {words}")
        self.failed = tuple(failed)
