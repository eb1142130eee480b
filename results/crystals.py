"""A crystal as a small drawing: one cell with its atoms, seen a little from the side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]

SIZE = 220.0
"""Width and height of a drawing; it scales to where it is put."""
MARGIN = 16.0
ON_FACE = 1e-3
"""Fractional coordinate within which an atom lies on a face, and is drawn on the opposite one."""
BOND = 1.15
"""How much longer than the shortest contact of an atom its bonds may be."""
MOST_ATOMS = 400
"""Atoms beyond which a drawing would be a blot."""

_TURN = np.deg2rad([-72.0, 0.0, 24.0])


def drawing(structure: Structure) -> Markup | None:
    """An SVG of the conventional cell; None where there are too many atoms."""
    cell = _conventional(structure)
    positions, species = _with_faces(cell)
    if len(species) > MOST_ATOMS:
        return None
    view = _view(cell.lattice.matrix)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    frame = corners @ cell.lattice.matrix @ view.T
    atoms = positions @ view.T
    everything = np.vstack([frame, atoms])
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = (SIZE - 2 * MARGIN) / float(max(high[:2] - low[:2]))

    def place(points: Array) -> Array:
        flat = (points[:, :2] - (low[:2] + high[:2]) / 2) * scale + SIZE / 2
        flat[:, 1] = SIZE - flat[:, 1]
        return np.asarray(flat)

    corner_at, atom_at = place(frame), place(atoms)
    parts: list[tuple[float, str]] = []
    for a in range(8):
        for b in range(a + 1, 8):
            if abs(corners[a] - corners[b]).sum() == 1:
                depth = float(frame[[a, b], 2].mean())
                parts.append((depth - 0.1, _line(corner_at[a], corner_at[b], "edge")))
    for a, b in _bonds(positions):
        depth = float(atoms[[a, b], 2].min())
        parts.append((depth - 0.05, _line(atom_at[a], atom_at[b], "bond")))
    for at, depth, specie in zip(atom_at, atoms[:, 2], species, strict=True):
        radius = scale * 0.38 * float(specie.atomic_radius or 1.3)
        parts.append(
            (
                float(depth),
                f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:.1f}" '
                f'fill="{_colour(specie)}"><title>{specie.symbol}</title></circle>',
            )
        )
    body = "".join(text for _, text in sorted(parts, key=lambda part: part[0]))
    # Numbers, symbols of elements and colours: nothing that comes from outside.
    return Markup(  # noqa: S704
        f'<svg class="crystal" viewBox="0 0 {SIZE:.0f} {SIZE:.0f}" role="img" '
        f'aria-label="Cell of {cell.composition.reduced_formula}">{body}</svg>'
    )


def legend(structure: Structure) -> list[tuple[str, str]]:
    """Symbols of the elements and the colours they are drawn in."""
    return [(el.symbol, _colour(el)) for el in structure.composition.elements]


def _conventional(structure: Structure) -> Structure:
    """The cell that textbooks show; as given where its symmetry cannot be found."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    try:
        cell: Structure = SpacegroupAnalyzer(structure).get_conventional_standard_structure()
    except (SymmetryUndeterminedError, TypeError, ValueError):
        return structure
    return cell


def _with_faces(cell: Structure) -> tuple[Array, list[Any]]:
    """Positions in Å and species, atoms on a face drawn on all faces that they lie on."""
    positions, species = [], []
    for site in cell:
        fractional = np.mod(site.frac_coords, 1.0)
        fractional[fractional > 1 - ON_FACE] = 0.0
        choices = [(x, x + 1.0) if x < ON_FACE else (x,) for x in fractional]
        for x in choices[0]:
            for y in choices[1]:
                for z in choices[2]:
                    positions.append(np.array([x, y, z]) @ cell.lattice.matrix)
                    species.append(site.specie)
    return np.array(positions), species


def _bonds(positions: Array) -> list[tuple[int, int]]:
    """Pairs of drawn atoms about as close as the closest contact of either."""
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1)
    close = distances <= BOND * np.minimum(nearest[:, None], nearest[None])
    return [(int(a), int(b)) for a, b in np.argwhere(np.triu(close))]


def _view(lattice: Array) -> Array:
    """Rotation into the picture: x to the right, y upwards, z towards the reader."""
    a, b, c = lattice
    x = a / np.linalg.norm(a)
    z = np.cross(a, b)
    z = z / np.linalg.norm(z) * (1.0 if z @ c >= 0 else -1.0)
    own = np.vstack([x, np.cross(z, x), z])
    tilt, _, turn = _TURN
    about_z = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    )
    return np.asarray(about_x @ about_z @ own)


def _line(a: Array, b: Array, kind: str) -> str:
    return f'<line class="{kind}" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>'


def _colour(specie: Any) -> str:
    """By the element's place in the periodic table: columns differ in hue, rows in lightness."""
    hue = (int(specie.group) * 137.5) % 360
    lightness = 68 - 5 * int(specie.row)
    return f"hsl({hue:.0f} 55% {lightness}%)"
