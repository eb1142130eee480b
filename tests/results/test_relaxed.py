"""A calculation that relaxed its crystal: the tensors go with the structure they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

from results.ledger import Ledger
from results.tables import export_validated
from results.view import CampaignView
from screening.material import Material


@pytest.fixture
def asked(samples: Any) -> Material:
    return samples.material(1)  # type: ignore[no-any-return]


@pytest.fixture
def relaxed(asked: Material) -> Structure:
    return asked.structure.copy().translate_sites([0], [0.01, 0, 0])


@pytest.fixture
def finished(ledger: Ledger, samples: Any, asked: Material, relaxed: Structure) -> Ledger:
    """A campaign with one accepted calculation, which relaxed its crystal first."""
    ledger.create_campaign("alpha", {"task": "high-k"}, "high-k", 7, {}, samples.known(2))
    current = ledger.start_round("alpha", 1).id
    ledger.record_training(current, "t", 4, "model", "m", {})
    ledger.record_predictions(current, samples.predictions(3))
    selection, planned = samples.plan(asked)
    ledger.select(current, [selection], [planned], [asked])
    output = {"relaxed_structure": json.loads(json.dumps(relaxed.as_dict()))}
    ledger.record_result(planned.key, output, "accepted", "", np.eye(3), np.eye(3), "PBE")
    return ledger


def test_it_is_learned_with_its_structure(
    finished: Ledger, asked: Material, relaxed: Structure
) -> None:
    (known,) = finished.accepted("alpha", 2)
    assert known.material.structure == relaxed != asked.structure
    assert (known.material.material_id, known.material.band_gap) == ("mp-1", asked.band_gap)
    assert known.asked is not None
    assert known.asked.structure_hash == asked.structure_hash


def test_it_is_shown_and_exported_with_its_structure(
    finished: Ledger, asked: Material, relaxed: Structure, tmp_path: Path
) -> None:
    view = CampaignView.from_ledger(finished, "alpha")
    assert view.structures == {asked.structure_hash: relaxed}
    records = export_validated(view, finished, tmp_path)[1]
    (entry,) = json.loads(records.read_text())
    assert Structure.from_dict(entry["structure"]) == relaxed


def test_the_record_keeps_both(finished: Ledger, asked: Material, relaxed: Structure) -> None:
    (record,) = finished.records(finished.calculations("alpha")["key"]).values()
    assert record.material.structure == asked.structure
    assert record.relaxed is not None
    assert record.relaxed.structure == relaxed
