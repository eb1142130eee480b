"""Works that campaigns rest on, as kinds and fields of BibTeX entries."""

from __future__ import annotations

from collections.abc import Mapping

Work = tuple[str, Mapping[str, str]]

PUBLISHED = {
    "goectp": "hua2024",
    "painn": "schutt2021",
    "m3gnet": "chen2022",
    "matten": "wen2024",
    "etgnn": "zhong2023",
    "gmtnet": "yan2024",
}
"""First part of a published model's name → its work; DTNet's is among those that are always."""


def _article(author: str, title: str, journal: str, year: str, doi: str, more: str = "") -> Work:
    fields = {"author": author, "title": title, "journal": journal, "year": year, "doi": doi}
    if more:
        volume, _, pages = more.partition(":")
        fields |= {"volume": volume} | ({"pages": pages} if pages else {})
    return "article", fields


def _preprint(author: str, title: str, year: str, eprint: str) -> Work:
    fields = {"author": author, "title": title, "year": year, "eprint": eprint}
    return "misc", fields | {"archiveprefix": "arXiv"}


WORKS: dict[str, Work] = {
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
    "hua2024": _preprint(
        "Hua, Haowei and Lin, Wanyu and Yang, Jingwen",
        "Fast Crystal Tensor Property Prediction: A General O(3)-Equivariant Framework Based on "
        "Polar Decomposition",
        "2024", "2410.02372",
    ),
    "schutt2021": _preprint(
        "Schütt, Kristof T. and Unke, Oliver T. and Gastegger, Michael",
        "Equivariant message passing for the prediction of tensorial properties and molecular "
        "spectra",
        "2021", "2102.03150",
    ),
    "chen2022": _article(
        "Chen, Chi and Ong, Shyue Ping",
        "A universal graph deep learning interatomic potential for the periodic table",
        "Nature Computational Science", "2022", "10.1038/s43588-022-00349-3", "2:718--728",
    ),
    "wen2024": _article(
        "Wen, Mingjian and others",
        "An equivariant graph neural network for the elasticity tensors of all seven crystal "
        "systems",
        "Digital Discovery", "2024", "10.1039/D3DD00233K", "3:869--882",
    ),
    "zhong2023": _article(
        "Zhong, Yang and Yu, Hongyu and Gong, Xingao and Xiang, Hongjun",
        "A General Tensor Prediction Framework Based on Graph Neural Networks",
        "The Journal of Physical Chemistry Letters", "2023", "10.1021/acs.jpclett.3c01200",
        "14:6339--6348",
    ),
    "yan2024": _preprint(
        "Yan, Keqiang and others",
        "A Space Group Symmetry Informed Network for O(3) Equivariant Crystal Tensor Prediction",
        "2024", "2406.12888",
    ),
    "geiger2022": _preprint(
        "Geiger, Mario and Smidt, Tess", "e3nn: Euclidean Neural Networks", "2022", "2207.09453"
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
