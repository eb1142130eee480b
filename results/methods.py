"""How a campaign was done, as a paragraph for a paper, and the works it rests on as BibTeX.

Everything in the text is what the campaign recorded: its settings, the versions it ran with and the
versions of the databases it read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from results.schema import ACCEPTED
from results.text import label_html, label_symbol
from results.view import CampaignView
from results.works import PUBLISHED, WORKS

ENGINES = {"vasp": "VASP", "abinit": "ABINIT", "replay": "a table of known DFPT results"}
SOURCES = {
    "builtin": "the built-in DFPT results (ABINIT, PBE)",
    "table": "a table",
    "folder": "a folder of structure files",
    "ase": "an ASE database",
    "mp": "the Materials Project",
    "optimade": "an OPTIMADE provider",
}
ACQUISITIONS = {
    "ucb": "the largest upper confidence bound μ + κσ (κ = {kappa:g})",
    "greedy": "the largest predicted figure of merit",
    "random": "chance",
}
TRAINING = {
    "learning_rate": "peak learning rate {:g}",
    "weight_decay": "weight decay {:g}",
    "dropout": "dropout {:g}",
    "batch_size": "batches of {}",
    "epochs": "{} epochs",
    "min_steps": "at least {} steps",
    "max_steps": "at most {} steps",
}
"""Settings of the training, and how the paragraph says them."""


def methods(view: CampaignView) -> Markup:
    """The paragraph, as HTML."""
    sentences = [*_data(view), *_model(view), *_loop(view), *_engine(view), *_software(view)]
    return Markup(" ").join(sentences)


def _data(view: CampaignView) -> list[Markup]:
    config = view.config
    known, candidates = config.get("known"), config.get("candidates")
    text = Markup("Dielectric tensors of {} materials, from {}, were known at the start.").format(
        f"{len(view.known):,}", _source(known, view.origin.get("known"))
    )
    sentences = [text]
    if candidates:
        where = _source(candidates, view.origin.get("candidates"))
        sentences.append(Markup("Candidates were taken from {}.").format(where))
    filters = config.get("filters")
    if isinstance(filters, Mapping) and {"max_sites", "min_band_gap"} <= filters.keys():
        sentences.append(
            Markup(
                "Kept were crystals of at most {} atoms with a band gap of at least {} eV."
            ).format(filters["max_sites"], f"{filters['min_band_gap']:g}")
        )
    if follows := config.get("follows"):
        sentences.append(
            Markup("The campaign builds on the validated results of “{}”.").format(follows)
        )
    return sentences


def _model(view: CampaignView) -> list[Markup]:
    model = view.config.get("model")
    if not isinstance(model, Mapping) or "members" not in model:
        return []
    potential = f"SevenNet ({model['encoder']})" if "encoder" in model else "SevenNet"
    if published := model.get("name"):
        return [
            Markup(
                "The electronic and ionic tensors were predicted by ensembles of {} networks of "
                "the published model {}, trained with its authors' optimiser settings, each on its "
                "own nine tenths of the known crystals that were not held out for calibration "
                "(seed {}). Features of atoms, where it has any, and the distance from the "
                "training set are from the interatomic potential {}."
            ).format(model["members"], published, view.seed, potential)
        ]
    # A campaign that another version began lacks some of its settings.
    details = [text.format(model[name]) for name, text in TRAINING.items() if name in model]
    return [
        Markup(
            "The electronic and ionic tensors were predicted by an ensemble of {} gated "
            "equivariant readouts on frozen atomic features of the interatomic potential {}, each "
            "trained on its own nine tenths of the known crystals that were not held out for "
            "calibration ({})."
        ).format(model["members"], potential, ", ".join(["AdamW", *details, f"seed {view.seed}"]))
    ]


def _loop(view: CampaignView) -> list[Markup]:
    config = view.config
    acquisition = config.get("acquisition")
    if not isinstance(acquisition, Mapping) or view.calculations.empty:
        return []
    per_round = view.calculations.groupby("round")["key"].nunique()
    rounds, sizes = len(per_round), sorted({*per_round})
    chosen = ACQUISITIONS.get(str(acquisition.get("kind")), "an acquisition function")
    how = chosen.format(kappa=float(acquisition.get("kappa", acquisition.get("beta", 0.0)) or 0.0))
    calculations = view.calculations.drop_duplicates("key")
    accepted = int((calculations["verdict"] == ACCEPTED).sum())
    return [
        Markup(
            "In {} of {} each, the next calculations were chosen by {} of the figure of "
            "merit {}; accepted results were added to the training data of the next round. Of {} "
            "calculations {} were accepted and {} refused."
        ).format(
            "1 round" if rounds == 1 else f"{rounds} rounds", _range(sizes, "candidate"), how,
            label_html(label_symbol(view.task.label)), len(calculations), accepted,
            len(view.refused),
        )
    ]  # fmt: skip


def _range(sizes: list[int], what: str) -> str:
    numbers = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"{numbers} {what}" if sizes[-1] == 1 else f"{numbers} {what}s"


def _engine(view: CampaignView) -> list[Markup]:
    found = {
        (row["engine"], row["functional"], view.engine_versions.get(row["key"], ""))
        for row in view.validated.to_dict("records")
        if row["engine"]
    }
    return [
        Markup("Tensors were {} {}{}{}.").format(
            "read from" if engine == "replay" else "calculated by DFPT with",
            ENGINES.get(engine, engine),
            f" {version}" if version and engine != "replay" else "",
            f" ({functional})" if functional else "",
        )
        for engine, functional, version in sorted(found)
    ]


def _software(view: CampaignView) -> list[Markup]:
    names = {"dielectric-screen": "dielectric-screen", "torch": "PyTorch", "sevenn": "SevenNet"}
    names |= {"e3nn": "e3nn", "pymatgen": "pymatgen", "spglib": "spglib", "python": "Python"}
    used = [f"{label} {view.versions[n]}" for n, label in names.items() if n in view.versions]
    return [Markup("Software: {}.").format(", ".join(used))] if used else []


def _source(settings: Any, pulled: Any) -> str:
    kind = settings.get("kind") if isinstance(settings, Mapping) else None
    if kind is None:
        return "the campaign's source"
    text = SOURCES.get(str(kind), str(kind))
    if kind == "optimade":
        text += f" ({settings.get('provider')}, filter {settings.get('filter')})"
    if isinstance(pulled, Mapping):
        facts = [
            f"{label} {pulled[name]}"
            for name, label in (("database_version", "version"), ("pulled_at", "read"))
            if pulled.get(name)
        ]
        text += f" ({', '.join(facts)})" if facts else ""
    return text


def bibtex(view: CampaignView) -> str:
    """Entries of the works that this campaign used, and of no others."""
    return "\n\n".join(_entry(key, *WORKS[key]) for key in _used(view)) + "\n"


def _used(view: CampaignView) -> list[str]:
    kinds = {
        str(node.get("kind"))
        for node in (view.config.get("known"), view.config.get("candidates"))
        if isinstance(node, Mapping)
    }
    model = str((view.config.get("model") or {}).get("name", ""))
    engines = {str(engine) for engine in view.validated["engine"]}
    functionals = {str(name) for name in view.validated["functional"]}
    wanted = {
        "dielectric-screen": True,
        "mao2024": True,
        **{work: model.startswith(name) for name, work in PUBLISHED.items()},
        "park2024": True,
        "geiger2022": "e3nn" in view.versions,
        "ansel2024": "torch" in view.versions,
        "ong2013": "pymatgen" in view.versions,
        "togo2024": "spglib" in view.versions,
        "rosen2024": "jobflow" in view.versions,
        "jain2013": "mp" in kinds,
        "andersen2021": "optimade" in kinds,
        "baroni2001": bool(len(view.validated)),
        "gonze2020": "abinit" in engines or "builtin" in kinds,
        "kresse1996": "vasp" in engines,
        "perdew1996": "PBE" in functionals,
        "perdew2008": "PBEsol" in functionals,
    }
    return [key for key, used in wanted.items() if used]


def _entry(key: str, kind: str, fields: Mapping[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def provenance(view: CampaignView) -> Iterable[Mapping[str, Any]]:
    """For each validated material: which calculation, by what, and picked by which model."""
    models = view.rounds.set_index("number")["model_hash"].to_dict()
    for row in view.validated.to_dict("records"):
        engine = " ".join([row["engine"], view.engine_versions.get(row["key"], "")]).strip()
        yield {
            **{str(name): value for name, value in row.items()},
            "engine": engine,
            "model": str(models.get(row["round"], ""))[:12],
            "folder": row["directory"],
        }
