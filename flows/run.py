"""What the steps of one campaign share."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import platform
from pathlib import Path

from dft.engine import Engine
from dft.launcher import Launcher, make_launcher
from dft.settings import ReplaySettings
from flows.config import Campaign
from flows.reporter import Reporter
from flows.sources import pinned_versions, pull_context
from models.cache import FeatureCache
from models.ensemble import resolve_device
from results.ledger import Ledger
from results.records import RoundRecord
from screening.errors import UserError
from screening.material import KnownMaterial, Material
from screening.pulling import PullContext, PulledKnown
from screening.settings import MaterialsProjectLabels
from screening.tasks import Task, get_task

FINISHED = "finished"
"""Status of a campaign that has nothing left to do."""

ALL_ROUNDS = 10**9
"""Later than any round."""

PACKAGES = (
    "dielectric-screen", "torch", "e3nn", "sevenn", "pymatgen", "spglib", "jobflow", "prefect",
    "sqlalchemy", "numpy", "pandas",
)  # fmt: skip


class CampaignRun:
    """A campaign at work: its settings, its place on disk, the ledger and the tools.

    Parameters
    ----------
    config
        The campaign.
    directory
        Where all campaigns live; this one's files go below ``directory / config.name``.
    ledger
        The ledger.
    reporter
        Where progress is shown.
    """

    def __init__(
        self, config: Campaign, directory: Path, ledger: Ledger, reporter: Reporter
    ) -> None:
        self.config = config
        self.directory = directory / config.name
        self.ledger = ledger
        self.reporter = reporter
        self.task: Task = get_task(config.task)
        self._launchers: dict[Path, Launcher] = {}

    @functools.cached_property
    def cache(self) -> FeatureCache:
        """Features of crystals, shared by all campaigns of this user.

        Raises
        ------
        UserError
            Its directory cannot be written.
        """
        model = self.config.model
        cache = FeatureCache(model.encoder, device=str(resolve_device(model.device)))
        with contextlib.suppress(OSError):
            cache.root.mkdir(parents=True, exist_ok=True)
        if not os.access(cache.root, os.W_OK | os.X_OK):
            raise UserError(
                f"The cache of features {cache.root} cannot be written; set SCREEN_CACHE to a "
                "directory that can."
            )
        return cache

    @functools.cached_property
    def pulls(self) -> PullContext:
        """What sources may use; database versions stay those that the campaign began with."""
        return pull_context(self.reporter, pinned_versions(self.ledger, self.config.name))

    @functools.cached_property
    def pulled_known(self) -> PulledKnown:
        """Materials whose tensors are known at the start, and what was refused.

        Raises
        ------
        UserError
            A table has a material with an element that the encoder does not know.
        """
        from models.encoder import supported_elements
        from screening.sources import pull_known

        encoder = self.config.model.encoder
        elements = supported_elements(encoder)
        pulled = pull_known(self.config.known, self.pulls)
        items = []
        for entry in pulled.items:
            strangers = sorted(set(entry.material.elements) - elements)
            if strangers and not isinstance(self.config.known, MaterialsProjectLabels):
                raise UserError(
                    f"The known material {entry.material.material_id} contains {strangers[0]}, "
                    f"which the encoder {encoder} does not know; take it out of the table."
                )
            if strangers:
                reason = f"{strangers[0]} is not known to the encoder {encoder}"
                pulled.refused.add(reason, entry.material.material_id)
            else:
                items.append(entry)
        return dataclasses.replace(pulled, items=items)

    @functools.cached_property
    def known(self) -> list[KnownMaterial]:
        """Materials whose tensors are known at the start, those of earlier campaigns among them."""
        known = list(self.pulled_known.items)
        for name in predecessors(self.config.follows, self.ledger):
            seen = {entry.material.structure_hash for entry in known}
            validated = self.ledger.accepted(name, before_round=ALL_ROUNDS)
            known += [k for k in validated if k.material.structure_hash not in seen]
        return known

    @functools.cached_property
    def tried(self) -> list[Material]:
        """Materials that the campaigns before this one have calculated, with whatever result."""
        tables = [
            self.ledger.calculations(name)
            for name in predecessors(self.config.follows, self.ledger)
        ]
        keys = [str(key) for table in tables for key in table["key"]]
        return [record.material for record in self.ledger.records(keys).values()]

    @functools.cached_property
    def engine(self) -> Engine:
        """What calculates.

        Raises
        ------
        UserError
            It cannot work on this machine.
        """
        settings = self.config.engine
        if not isinstance(settings, ReplaySettings):
            from dft.engines import make_engine

            return make_engine(settings, programs=self.config.launcher.kind == "local")
        from dft.replay import ReplayEngine
        from screening.sources import load_answers

        answers = load_answers(settings.answers, self.pulls)
        return ReplayEngine(answers, settings)

    def launcher(self, root: Path) -> Launcher:
        """What runs the calculations below ``root``."""
        if root not in self._launchers:
            self._launchers[root] = make_launcher(self.config.launcher, root)
        return self._launchers[root]

    def close(self) -> None:
        """Let go of the launchers; calculations under way carry on."""
        for launcher in self._launchers.values():
            launcher.close()

    @property
    def is_finished(self) -> bool:
        """Whether all rounds are done."""
        record = self.ledger.campaign(self.config.name)
        return record is not None and record.status == FINISHED

    @property
    def calculations(self) -> Path:
        """Root of this campaign's calculation directories."""
        return self.directory / "calculations"

    def round_directory(self, number: int) -> Path:
        """Where the files of a round go."""
        return self.directory / f"round-{number}"

    def round(self, number: int) -> RoundRecord:
        """A round as the ledger has it, begun if need be."""
        return self.ledger.start_round(self.config.name, number)


def predecessors(follows: str | None, ledger: Ledger) -> list[str]:
    """Names of the campaigns that one rests on, the latest first.

    Raises
    ------
    UserError
        One of them is not in the ledger.
    """
    names: list[str] = []
    while follows is not None and follows not in names:
        record = ledger.campaign(follows)
        if record is None:
            raise UserError(
                f"There is no campaign '{follows}' in the ledger, which 'follows' names; correct "
                "the name or leave it out."
            )
        names.append(follows)
        follows = record.config.get("follows")
    return names


def versions() -> dict[str, str]:
    """Versions of what results depend on, for provenance."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
