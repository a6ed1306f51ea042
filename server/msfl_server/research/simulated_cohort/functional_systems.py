"""Functional-system subscores that go with an EDSS, by Kurtzke's rules (Neurology 1983) and Neurostatus' ambulation.

Up to 4.0 the EDSS follows from the highest subscores: 1.5 is two of grade 1, 3.0 one of grade 3, and so on. From 4.5
on it follows from the distance walked, which the ambulation score says; the other subscores go along.
"""

from dataclasses import dataclass

import numpy as np

SYSTEMS = ("visual", "brainstem", "pyramidal", "cerebellar", "sensory", "bowel_bladder", "cerebral")
HIGHEST = (6, 5, 6, 5, 6, 6, 5)
SUBSCORES = tuple(f"fs_{name}" for name in (*SYSTEMS, "ambulation"))
_OFTEN = np.array([0.6, 0.8, 2.0, 1.1, 1.5, 1.2, 0.8])  # how readily a system is hit; pyramidal tracts first
_GRADES = {  # EDSS to the highest subscores; every other one is 0, or 1 from 2.0 on
    0.0: (),
    1.0: (1,),
    1.5: (1, 1),
    2.0: (2,),
    2.5: (2, 2),
    3.0: (3,),
    3.5: (3, 2),
    4.0: (4,),
    4.5: (4, 2),
    5.0: (4, 3),
    5.5: (4, 3, 2),
}
_DISABLED = (4, 3, 3)  # from 6.0 on
_AMBULATION = {4.0: 1, 4.5: 2, 5.0: 3, 5.5: 4, 6.0: 6, 6.5: 8, 7.0: 10, 7.5: 11}
_BEDRIDDEN = 12  # from 8.0 on


@dataclass(frozen=True)
class Involvement:
    """Which systems a patient's disease hits first, and which have minor signs besides."""

    order: tuple[int, ...]
    minor: tuple[bool, ...]


def draw_involvement(rng: np.random.Generator) -> Involvement:
    """Draw a patient's order of systems."""
    order = np.argsort(rng.exponential(size=len(SYSTEMS)) / _OFTEN)
    return Involvement(tuple(order.tolist()), tuple((rng.random(len(SYSTEMS)) < 0.3).tolist()))


def hit(rng: np.random.Generator, involvement: Involvement, *, worse: bool) -> Involvement:
    """The involvement after lesions hit a system: it has minor signs, and comes first where the EDSS got worse."""
    system = int(rng.choice(len(SYSTEMS), p=_OFTEN / _OFTEN.sum()))
    order = (system, *(one for one in involvement.order if one != system)) if worse else involvement.order
    return Involvement(order, tuple(minor or one == system for one, minor in enumerate(involvement.minor)))


def subscores(edss: float, involvement: Involvement) -> dict[str, int]:
    """The eight subscores of a valid EDSS, keyed as `SUBSCORES`."""
    grades = _GRADES.get(edss, _DISABLED)
    scores = [int(edss >= 2 and minor) for minor in involvement.minor]
    for system, grade in zip(involvement.order, grades, strict=False):
        scores[system] = min(grade, HIGHEST[system])
    ambulation = _AMBULATION.get(edss, _BEDRIDDEN if edss >= 8 else 0)
    return dict(zip(SUBSCORES, (*scores, ambulation), strict=True))
