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
    # A campaign that another version began lacks some of its settings.
    details = [text.format(model[name]) for name, text in TRAINING.items() if name in model]
    potential = f"SevenNet ({model['encoder']})" if "encoder" in model else "SevenNet"
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
    rounds = len(view.round_numbers)
    if not isinstance(acquisition, Mapping) or not rounds:
        return []
    chosen = ACQUISITIONS.get(str(acquisition.get("kind")), "an acquisition function")
    how = chosen.format(kappa=float(acquisition.get("kappa", acquisition.get("beta", 0.0)) or 0.0))
    calculations = view.calculations.drop_duplicates("key")
    accepted = int((calculations["verdict"] == ACCEPTED).sum())
    return [
        Markup(
            "In {} of {} candidates each, the next calculations were chosen by {} of the figure of "
            "merit {}; accepted results were added to the training data of the next round. Of {} "
            "calculations {} were accepted and {} refused."
        ).format(
            "1 round" if rounds == 1 else f"{rounds} rounds", config.get("batch", "several"), how,
            label_html(label_symbol(view.task.label)), len(calculations), accepted,
            len(view.refused),
        )
    ]  # fmt: skip


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
    engines = {str(engine) for engine in view.validated["engine"]}
    functionals = {str(name) for name in view.validated["functional"]}
    wanted = {
        "dielectric-screen": True,
        "mao2024": True,
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


def _article(author: str, title: str, journal: str, year: str, doi: str, more: str = "") -> Any:
    fields = {"author": author, "title": title, "journal": journal, "year": year, "doi": doi}
    if more:
        volume, _, pages = more.partition(":")
        fields |= {"volume": volume} | ({"pages": pages} if pages else {})
    return "article", fields


WORKS: dict[str, tuple[str, Mapping[str, str]]] = {
    "dielectric-screen": (
        "software",
        {"author": "{The dielectric-screen developers}", "title": "dielectric-screen"},
    ),
    "mao2024": _article(
        "Mao, Zetian and Li, WenWen and Tan, Jethro",
        "Dielectric tensor prediction for inorganic materials using latent information from "
        "preferred potential",
        "npj Computational Materials", "2024", "10.1038/s41524-024-01450-z",
    ),
    "park2024": _article(
        "Park, Yutack and Kim, Jaesun and Hwang, Seungwoo and Han, Seungwu",
        "Scalable parallel algorithm for graph neural network interatomic potentials in molecular "
        "dynamics simulations",
        "Journal of Chemical Theory and Computation", "2024", "10.1021/acs.jctc.4c00190", "20",
    ),
    "geiger2022": (
        "misc",
        {
            "author": "Geiger, Mario and Smidt, Tess", "title": "e3nn: Euclidean Neural Networks",
            "year": "2022", "eprint": "2207.09453", "archiveprefix": "arXiv",
        },
    ),
    "ansel2024": (
        "inproceedings",
        {
            "author": "Ansel, Jason and others",
            "title": "PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode "
            "Transformation and Graph Compilation",
            "booktitle": "ASPLOS '24", "year": "2024", "doi": "10.1145/3620665.3640366",
        },
    ),
    "ong2013": _article(
        "Ong, Shyue Ping and others",
        "Python Materials Genomics (pymatgen): A robust, open-source python library for materials "
        "analysis",
        "Computational Materials Science", "2013", "10.1016/j.commatsci.2012.10.028", "68:314--319",
    ),
    "togo2024": _article(
        "Togo, Atsushi and Shinohara, Kohei and Tanaka, Isao",
        "Spglib: a software library for crystal symmetry search",
        "Science and Technology of Advanced Materials: Methods", "2024",
        "10.1080/27660400.2024.2384822", "4",
    ),
    "rosen2024": _article(
        "Rosen, Andrew S. and others",
        "Jobflow: Computational Workflows Made Simple",
        "Journal of Open Source Software", "2024", "10.21105/joss.05995", "9",
    ),
    "jain2013": _article(
        "Jain, Anubhav and others",
        "Commentary: The Materials Project: A materials genome approach to accelerating materials "
        "innovation",
        "APL Materials", "2013", "10.1063/1.4812323", "1",
    ),
    "andersen2021": _article(
        "Andersen, Casper W. and others", "OPTIMADE, an API for exchanging materials data",
        "Scientific Data", "2021", "10.1038/s41597-021-00974-z", "8",
    ),
    "baroni2001": _article(
        "Baroni, Stefano and de Gironcoli, Stefano and Dal Corso, Andrea and Giannozzi, Paolo",
        "Phonons and related crystal properties from density-functional perturbation theory",
        "Reviews of Modern Physics", "2001", "10.1103/RevModPhys.73.515", "73:515--562",
    ),
    "gonze2020": _article(
        "Gonze, Xavier and others",
        "The Abinit project: Impact, environment and recent developments",
        "Computer Physics Communications", "2020", "10.1016/j.cpc.2019.107042", "248",
    ),
    "kresse1996": _article(
        "Kresse, Georg and Furthmüller, Jürgen",
        "Efficient iterative schemes for ab initio total-energy calculations using a plane-wave "
        "basis set",
        "Physical Review B", "1996", "10.1103/PhysRevB.54.11169", "54:11169--11186",
    ),
    "perdew1996": _article(
        "Perdew, John P. and Burke, Kieron and Ernzerhof, Matthias",
        "Generalized Gradient Approximation Made Simple",
        "Physical Review Letters", "1996", "10.1103/PhysRevLett.77.3865", "77:3865--3868",
    ),
    "perdew2008": _article(
        "Perdew, John P. and others",
        "Restoring the Density-Gradient Expansion for Exchange in Solids and Surfaces",
        "Physical Review Letters", "2008", "10.1103/PhysRevLett.100.136406", "100",
    ),
}  # fmt: skip


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
