"""What is written and read: outputs, keys, settings, public names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

import dft
from dft.calculation import calculation_key
from dft.engine import CalculationOutput
from dft.settings import GateThresholds, LocalLauncherSettings, ReplaySettings
from dft.verdict import Verdict

numbers = st.floats(allow_nan=True, allow_infinity=False)
tensors = st.none() | arrays(float, (3, 3), elements=numbers)
scalars = st.none() | st.floats(-1e6, 1e6)
outputs = st.builds(
    CalculationOutput,
    electronic=tensors,
    ionic=tensors,
    born_charges=st.none() | arrays(float, (2, 3, 3), elements=numbers),
    min_optical_thz=scalars,
    band_gap=scalars,
    converged=st.booleans(),
    functional=st.text(),
    engine=st.text(),
    engine_version=st.text(),
    error=st.none() | st.text(),
    timed_out=st.booleans(),
    cpu_s=st.floats(0, 1e9),
    wall_s=st.floats(0, 1e9),
)


@given(outputs)
def test_outputs_survive_strict_json(output: CalculationOutput) -> None:
    text = json.dumps(output.to_dict(), allow_nan=False)
    again = CalculationOutput.from_dict(json.loads(text))
    assert again.to_dict() == output.to_dict()
    for name in ("electronic", "ionic", "born_charges"):
        before, after = getattr(output, name), getattr(again, name)
        assert (before is None) == (after is None)
        if before is not None:
            np.testing.assert_array_equal(after, before)


GOOD = CalculationOutput(converged=True, functional="", engine="", engine_version="").to_dict()


@pytest.mark.parametrize(
    "damage",
    [
        {"converged": 1},
        {"timed_out": None},
        {"error": 3},
        {"wall_s": "long"},
        {"wall_s": True},
        {"electronic": "identity"},
        {"band_gap": [1.0]},
        {"surprise": 1},
    ],
)
def test_what_is_no_output_is_not_taken_for_one(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="record"):
        CalculationOutput.from_dict(GOOD | damage)


@pytest.mark.parametrize(
    "value", [[], 3, None, {}, {k: v for k, v in GOOD.items() if k != "error"}]
)
def test_incomplete_records_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="record"):
        CalculationOutput.from_dict(value)


@pytest.mark.parametrize("tensor", [[[1, 2], [3]], [["a"] * 3] * 3, [[None] * 3] * 3])
def test_a_tensor_that_is_none_reaches_the_gate_as_not_finite(tensor: Any) -> None:
    electronic = CalculationOutput.from_dict(GOOD | {"electronic": tensor}).electronic
    assert electronic is not None and np.isnan(electronic).all()


def test_keys_depend_on_both_hashes() -> None:
    keys = {calculation_key(a, b) for a in ("1", "2", "12") for b in ("1", "2", "12")}
    assert len(keys) == 9 and all(len(key) == 32 for key in keys)


def test_settings_refuse_what_makes_no_sense() -> None:
    for model, wrong in (
        (LocalLauncherSettings, {"max_parallel": 0}),
        (LocalLauncherSettings, {"timeout_s": 0}),
        (LocalLauncherSettings, {"cores": 4}),
        (ReplaySettings, {"delay_s": -1}),
        (ReplaySettings, {"failures": {"mp-1": "accepted"}}),
        (ReplaySettings, {"failures": {"mp-1": "bad luck"}}),
        (GateThresholds, {"imaginary_thz": 0.5}),
        (GateThresholds, {"imaginary_thz": float("nan")}),
    ):
        with pytest.raises(ValidationError):
            model(**wrong)
    read = ReplaySettings.model_validate({"failures": {"mp-1": "imaginary mode"}})
    assert read.failures == {"mp-1": Verdict.IMAGINARY_MODE}


def test_every_threshold_gives_its_reason() -> None:
    for name, field in GateThresholds.model_fields.items():
        assert field.description and len(field.description) > 60, name


def test_public_names_exist() -> None:
    for name in dft.__all__:
        assert getattr(dft, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = dft.nothing


def test_a_worker_imports_nothing_heavy() -> None:
    code = (
        "import dft.worker, dft.replay_job, sys; dft.worker.preload();"
        "print([m for m in ('torch', 'pandas', 'mp_api', 'atomate2', 'prefect', 'pymatgen.core')"
        " if m in sys.modules])"
    )
    root = Path(dft.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
