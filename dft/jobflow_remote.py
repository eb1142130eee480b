"""Calculations handed over to jobflow-remote, for people who already run it with MongoDB.

Their project, their workers, their runner (``jf runner start``) do the work; this puts flows into
its database, looks at their states, and brings the results back into the calculations'
directories. A flow keeps the identity that ``flow.json`` gave it, and the database takes an
identity once: handing over again, after whatever crash, does nothing.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dft.activity import Activity, of_directory
from dft.calculation import Calculation, State
from dft.engine import CalculationOutput
from dft.execution import failed, resolved
from dft.local import fetched
from dft.locks import try_lock_file
from dft.settings import JobflowRemoteSettings
from screening.errors import UserError
from screening.io import atomic_write

if TYPE_CHECKING:
    from jobflow.core.flow import Flow
    from jobflow_remote.config.base import Project
    from jobflow_remote.jobs.data import FlowInfo, JobInfo
    from jobflow_remote.jobs.jobcontroller import JobController

T = TypeVar("T")

_LONGEST_ERROR = 500


class JobflowRemoteLauncher:
    """Flows below ``root`` in the database of a project of jobflow-remote."""

    def __init__(self, root: Path, settings: JobflowRemoteSettings) -> None:
        self.root = Path(root).resolve()
        self.settings = settings
        self.place = f"jobflow-remote:{socket.gethostname()}"
        self._states: dict[str, State] = {}
        self._done: set[str] = set()
        self._look_at = 0.0

    def submit(self, keys: Sequence[str]) -> dict[str, str]:
        """See :meth:`dft.launcher.Launcher.submit`."""
        for calculation in map(self._calculation, keys):
            if calculation.result() is not None:
                continue
            calculation.require_flow()
            if calculation.cancelled_path.exists():
                self._forget(_uuid(calculation))
                calculation.allow()
            self._hand_over(calculation)
        self._look_at = 0.0
        return dict.fromkeys(keys, self.place)

    def poll(self, keys: Sequence[str]) -> dict[str, State]:
        """See :meth:`dft.launcher.Launcher.poll`; looks every ``poll_s`` seconds only.

        Raises
        ------
        UserError
            The database does not answer, or jobflow-remote waits for a person.
        """
        if time.monotonic() >= self._look_at or not self._states.keys() >= set(keys):
            self._look_at = time.monotonic() + self.settings.poll_s
            self._states |= {key: state for key, state, _ in self._look(keys)}
        return {key: self._states[key] for key in keys}

    def cancel(self, keys: Sequence[str]) -> None:
        """See :meth:`dft.launcher.Launcher.cancel`."""
        for calculation in map(self._calculation, keys):
            if not calculation.is_ready() or calculation.result() is not None:
                continue
            atomic_write(calculation.cancelled_path, "cancelled by hand\n")
            self._stop(_uuid(calculation))
        self._look_at = 0.0

    def look(self, keys: Sequence[str]) -> dict[str, Activity]:
        """See :meth:`dft.launcher.Launcher.look`."""
        found = {}
        for key, state, jobs in self._look(keys):
            found[key] = of_directory(self._calculation(key), state, self.settings.cores)
            if job := next((j for j in reversed(jobs) if j.start_time), next(iter(jobs), None)):
                begun = job.start_time or job.created_on
                since = (begun if begun.tzinfo else begun.replace(tzinfo=UTC)).isoformat()
                where = f"job {job.db_id} on {job.worker}"
                found[key] = Activity(
                    state, where, since, self.settings.cores, job.remote.step_attempts + 1,
                    job.state.value.lower(),
                )  # fmt: skip
        return found

    def fetch(self, key: str) -> CalculationOutput:
        """See :meth:`dft.launcher.Launcher.fetch`."""
        return fetched(self._calculation(key))

    def close(self) -> None:
        """See :meth:`dft.launcher.Launcher.close`."""

    @cached_property
    def _controller(self) -> JobController:
        try:
            from jobflow_remote.jobs.jobcontroller import JobController
        except ImportError:
            raise UserError(
                "jobflow-remote is not installed; pip install jobflow-remote, "
                "or use --launcher local or slurm."
            ) from None
        return _understood(lambda: JobController.from_project_name(self.settings.project))

    def _ask(self, question: Callable[[JobController], T]) -> T:
        controller = self._controller
        return _understood(lambda: question(controller))

    def _hand_over(self, calculation: Calculation) -> None:
        # One at a time; the database refuses a second flow of the same identity all the same.
        with try_lock_file(self.root / ".jobflow-remote.lock", patience_s=60.0):
            if self._infos([_uuid(calculation)]):
                return
            flow = _flow(calculation)
            wanted = self.settings
            workers = self._project.workers
            worker = wanted.worker or next(iter(workers), "")
            self._chosen("worker", worker, workers)
            lines = wanted.exec_config and self._chosen(
                "exec_config", wanted.exec_config, self._project.exec_config
            )
            flow.update_metadata({"calculation": calculation.key}, dynamic=True)
            self._ask(
                lambda c: c.add_flow(
                    flow, worker, exec_config=lines or None, resources=wanted.resources,
                    priority=wanted.priority,
                )
            )  # fmt: skip

    def _forget(self, uuid: str) -> None:
        self._ask(lambda c: c.delete_flow(uuid, delete_output=True))

    def _stop(self, uuid: str) -> None:
        from jobflow_remote.jobs.state import RUNNING_STATES, JobState

        states = [JobState.READY, *RUNNING_STATES]
        self._ask(lambda c: c.stop_jobs(flow_ids=[uuid], states=states, raise_on_error=False))

    def _jobs(self, uuids: Sequence[str]) -> dict[str, list[JobInfo]]:
        found: dict[str, list[JobInfo]] = {uuid: [] for uuid in uuids}
        for job in self._ask(lambda c: c.get_jobs_info(flow_ids=list(uuids))) if uuids else ():
            # The last of its hosts is the flow that was handed over.
            found[(job.hosts or [""])[-1]].append(job)
        return found

    @property
    def _project(self) -> Project:
        project = self._controller.project
        assert project is not None, "the controller was made from a project"
        return project

    def _chosen(self, setting: str, name: str, there_are: Mapping[str, T]) -> T:
        if name not in there_are:
            raise UserError(
                f"The project {self._project.name} of jobflow-remote has no {setting} "
                f"'{name}' (it has: {', '.join(there_are) or 'none'}); correct launcher.{setting}."
            )
        return there_are[name]

    def _infos(self, uuids: Sequence[str]) -> dict[str, FlowInfo]:
        found = self._ask(lambda c: c.get_flows_info(flow_ids=list(uuids))) if uuids else []
        return {info.flow_id: info for info in found}

    def _look(self, keys: Sequence[str]) -> Iterable[tuple[str, State, list[JobInfo]]]:
        """Key, state and jobs of each; writes the results of those that have ended."""
        uuids = {}
        for key in keys:
            calculation = self._calculation(key)
            if key in self._done or calculation.result() is not None:
                self._done.add(key)
                yield key, State.DONE, []
            elif not calculation.is_ready():
                yield key, State.LOST, []
            else:
                uuids[key] = _uuid(calculation)
        infos = self._infos(list(uuids.values()))
        jobs = self._jobs(list(infos))
        for key, uuid in uuids.items():
            info = infos.get(uuid)
            if info is None:
                # Somebody has emptied the database: it is handed over again.
                self._hand_over(self._calculation(key))
                yield key, State.PENDING, []
            else:
                yield key, self._advanced(self._calculation(key), info, jobs[uuid]), jobs[uuid]

    def _advanced(self, calculation: Calculation, info: FlowInfo, jobs: Sequence[JobInfo]) -> State:
        from jobflow_remote.jobs.state import FlowState, JobState

        stuck = next((job for job in jobs if job.state is JobState.REMOTE_ERROR), None)
        if stuck is not None:
            raise UserError(
                f"jobflow-remote could not run job {stuck.db_id} "
                f"({_line(stuck.remote.error or 'no reason given')}); correct that, have it try "
                f"again with `jf job retry {stuck.db_id}`, and run the same command again, nothing "
                "is lost."
            )
        if info.state is FlowState.COMPLETED:
            self._record(calculation, self._answer(calculation), jobs)
            return State.DONE
        if info.state is FlowState.FAILED:
            error = next((job.error for job in jobs if job.state is JobState.FAILED), None)
            self._record(calculation, failed(calculation, _line(error or "no reason given")), jobs)
            return State.DONE
        if info.state is FlowState.STOPPED:
            atomic_write(calculation.cancelled_path, "stopped in jobflow-remote\n")
            return State.LOST
        return State.PENDING if info.state in (FlowState.READY, FlowState.WAITING) else (
            State.RUNNING
        )  # fmt: skip

    def _answer(self, calculation: Calculation) -> CalculationOutput:
        try:
            return self._ask(lambda c: resolved(_flow(calculation), c.jobstore))
        except (ValueError, TypeError, KeyError) as error:
            return failed(calculation, _line(f"jobflow-remote has no answer: {error}"))

    def _record(
        self, calculation: Calculation, output: CalculationOutput, jobs: Sequence[JobInfo]
    ) -> None:
        wall_s = sum(job.run_time or 0.0 for job in jobs)
        # What a job's process has used is not known here, its time and its cores are.
        cpu_s = wall_s * self.settings.cores
        calculation.conclude(dataclasses.replace(output, cpu_s=cpu_s, wall_s=wall_s))

    def _calculation(self, key: str) -> Calculation:
        return Calculation(self.root / key)


def _uuid(calculation: Calculation) -> str:
    return str(json.loads(calculation.flow_path.read_bytes())["uuid"])


def _flow(calculation: Calculation) -> Flow:
    from monty.json import MontyDecoder

    flow: Flow = json.loads(calculation.flow_path.read_bytes(), cls=MontyDecoder)
    return flow


def _understood(action: Callable[[], T]) -> T:
    """What ``action`` returns; what it complains about, as a sentence."""
    from jobflow_remote.config.base import ConfigError
    from jobflow_remote.utils.db import LockedDocumentError
    from pymongo.errors import PyMongoError

    try:
        return action()
    except ConfigError as error:
        raise UserError(
            f"jobflow-remote is not set up for this ({_line(str(error))}); `jf project list` and "
            "`jf project check` say what there is, launcher.project and launcher.worker choose."
        ) from error
    except (PyMongoError, LockedDocumentError) as error:
        raise UserError(
            f"The database of jobflow-remote does not answer ({_line(str(error))}); run the same "
            "command again when it does, nothing is lost."
        ) from error


def _line(text: str) -> str:
    """The last line of what may be a traceback."""
    lines: list[Any] = [line.strip() for line in text.splitlines() if line.strip()]
    return str(lines[-1] if lines else "no message")[:_LONGEST_ERROR].rstrip(".")
