"""Who is it? Probes looked for among the people of a gallery: rank-1, CMC; open set: TPIR at FPIR.

Terms of ISO/IEC 19795-1 and NIST's FRVT 1:N. The gallery holds pictures of known people. A probe is a picture to
name: mated where its person is in the gallery, non-mated where not; distractors are more non-mated pictures, of
people in neither. A person is as far from a probe as their nearest gallery picture.

- Closed set, mated probes: the rank of the true person among all people of the gallery, 1 for the nearest. A tie
  counts against the probe: it gets the worst rank among equals. Rank-1 is the share of rank 1, and the cumulative
  match characteristic (CMC) the share of rank r or better.
- Open set: a probe gets the nearest person's name where that person is nearer than a threshold, else the answer
  "unknown". TPIR is the share of mated probes that get the right name, FPIR that of non-mated ones that get any.
- ID rate: TPR at FPR of single pairs; see `facekit.similarities`.

A picture without a face is a row of NaN. A probe without a face gets no name: a miss if mated, no false alarm if
not. A gallery picture without one is dropped; the probes of a person with none left are misses.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facekit.metrics import BoolArray, FloatArray, IntArray, Roc, roc, tpr_at_fpr
from facekit.plain import plain
from facekit.shares import ShareInterval, share_interval
from facekit.similarities import COSINE_EDGES, Rows, Similarities, blocks, compare_probes, squared_distances

CMC_RANKS = 50
"""Ranks of a report's CMC, however many people there are."""

_NOBODY = -1


@dataclass(frozen=True)
class TpirAtFpir:
    """The best TPIR at a false-positive identification rate, where the non-mated probes are enough to claim one.

    Attributes:
        fpir: the rate asked for, 0 to 1.
        tpir: best TPIR whose false alarms are at most floor(fpir * non-mated probes); NaN where not claimable.
        threshold: the largest that gives it; NaN where it is not claimable.
        claimable: whether fpir >= 3 / non-mated probes (the rule of three).
        needs: non-mated probes that a claim needs.
    """

    fpir: float
    tpir: float
    threshold: float
    claimable: bool
    needs: int


@dataclass(frozen=True)
class AtThreshold:
    """What naming everybody nearer than a threshold gets right and wrong. Rates are 0 to 1.

    Attributes:
        threshold: distance below which a name is given.
        tpir: right / mated probes.
        fpir: false alarms / non-mated probes; NaN without any.
        resolves: 3 / non-mated probes, the least FPIR that they can support; NaN without any.
        right: mated probes with the right name.
        misnamed: mated probes with a wrong name, or with one of several people that are equally near.
        unknown_mated: mated probes with the answer "unknown", those without a face included.
        false_alarms: non-mated probes with a name.
        unknown_non_mated: non-mated probes with the answer "unknown", those without a face included.
    """

    threshold: float
    tpir: float
    fpir: float
    resolves: float
    right: int
    misnamed: int
    unknown_mated: int
    false_alarms: int
    unknown_non_mated: int


@dataclass(frozen=True, eq=False)
class Identification:
    """What every search found. The n searches are the p probes in their order, then the distractors.

    Attributes:
        gallery_people: people in the gallery, the lost ones included.
        lost_people: those of whom no gallery picture has a face.
        gallery_pictures: pictures in the gallery.
        failed_gallery: those without a face.
        probe_people: (p,) int64, each probe's person, numbered.
        mated: (n,) bool, whether the person is in the gallery; False for distractors.
        failed: (n,) bool, pictures without a face.
        ranks: (n,) float64, the true person's rank, from 1; infinite where they cannot be found.
        nearest: (n,) float64, distance of the nearest person; infinite without a face.
        similarities: pairs of probes, and of probes and distractors.
    """

    gallery_people: int
    lost_people: int
    gallery_pictures: int
    failed_gallery: int
    probe_people: IntArray
    mated: BoolArray
    failed: BoolArray
    ranks: FloatArray
    nearest: FloatArray
    similarities: Similarities

    @cached_property
    def cmc(self) -> FloatArray:
        """(max(50, gallery people),) share of mated probes of rank 1, of rank 2 or better, and so on."""
        ranks = np.arange(1, max(CMC_RANKS, self.gallery_people) + 1)
        return np.searchsorted(np.sort(self.ranks[self.mated]), ranks, side="right") / self.mated.sum()

    @cached_property
    def rank1_interval(self) -> ShareInterval:
        """The 95 % interval of rank-1, by the people of the mated probes."""
        mated = self.mated[: self.probe_people.size]
        right = self.ranks[: mated.size] == 1
        return share_interval(right[mated], self.probe_people[mated])

    @cached_property
    def open_set(self) -> Roc:
        """TPIR (its `tpr`) and FPIR (its `fpr`) at every threshold; NaN where there is no non-mated probe."""
        return roc(self._counted_below, self.mated)

    @property
    def _counted_below(self) -> FloatArray:
        """(n,) the distance above which a threshold lets a search add to TPIR or FPIR; infinite: it never does."""
        return np.where(self.mated & (self.ranks != 1), np.inf, self.nearest)

    def tpir_at_fpir(self) -> list[TpirAtFpir]:
        """The best TPIR at each of `facekit.metrics.USUAL_RATES`."""
        claims = tpr_at_fpr(self._counted_below, self.mated)
        return [TpirAtFpir(at.fpr, at.tpr, at.threshold, at.claimable, at.needs) for at in claims]

    def at(self, threshold: float) -> AtThreshold:
        """What a threshold chosen elsewhere does here.

        Raises:
            ValueError: `threshold` is NaN.
        """
        if math.isnan(threshold):
            raise ValueError("`threshold` must be a number. Received: NaN.")
        named = self.nearest < threshold
        mated, non_mated = int(self.mated.sum()), int((~self.mated).sum())
        named_mated, right = int((named & self.mated).sum()), int((named & (self.ranks == 1)).sum())
        alarms = int((named & ~self.mated).sum())
        return AtThreshold(
            threshold=threshold,
            tpir=right / mated,
            fpir=alarms / non_mated if non_mated else math.nan,
            resolves=3 / non_mated if non_mated else math.nan,
            right=right,
            misnamed=named_mated - right,
            unknown_mated=mated - named_mated,
            false_alarms=alarms,
            unknown_non_mated=non_mated - alarms,
        )

    def to_report(self, threshold: float | None = None) -> dict[str, Any]:
        """Every figure as JSON values, plain numbers first; None where one is undefined or infinite.

        Args:
            threshold: the model's own, chosen elsewhere; None: no figure at a threshold.
        """
        chosen = None if threshold is None else plain(asdict(self.at(threshold)))
        return {
            "rank1": float(self.cmc[0]),
            "rank5": float(self.cmc[4]),
            "rank10": float(self.cmc[9]),
            "threshold": threshold,
            "tpir": chosen and chosen["tpir"],
            "fpir": chosen and chosen["fpir"],
            **self._counts(),
            "cmc": [{"rank": rank, "share": float(self.cmc[rank - 1])} for rank in range(1, CMC_RANKS + 1)],
            "tpir_at_fpir": [plain(asdict(claim)) for claim in self.tpir_at_fpir()],
            "id_rate": [
                plain(asdict(claim) | {"cosine": 1 - claim.threshold**2 / 2}) for claim in self.similarities.id_rate
            ],
            "at_threshold": chosen,
            "intervals": self._intervals_part(),
            "survivors": self._survivors_part(),
            "similarities": self._similarities_part(),
        }

    def _counts(self) -> dict[str, int]:
        probes = self.probe_people.size
        return {
            "gallery_people": self.gallery_people,
            "gallery_pictures": self.gallery_pictures,
            "probes": probes,
            "distractors": self.mated.size - probes,
            "mated": int(self.mated.sum()),
            "non_mated": int((~self.mated).sum()),
            "failed_gallery": self.failed_gallery,
            "failed_probes": int(self.failed[:probes].sum()),
            "failed_distractors": int(self.failed[probes:].sum()),
            "lost_people": self.lost_people,
            "probes_of_lost_people": int((self.mated & ~self.failed & np.isinf(self.ranks)).sum()),
        }

    def _intervals_part(self) -> dict[str, Any]:
        low, high, by_people = self.rank1_interval
        return {"by": "probe person" if by_people else "probe", "rank1": [low, high]}

    def _survivors_part(self) -> dict[str, Any] | None:
        """Rank-1 of the mated probes that could be compared with their person; None where all could."""
        ranks = self.ranks[self.mated]
        compared = ranks[np.isfinite(ranks)]
        if compared.size == ranks.size:
            return None
        return {"mated": compared.size, "rank1": float(np.mean(compared == 1)) if compared.size else None}

    def _similarities_part(self) -> dict[str, Any]:
        pairs = self.similarities
        kinds = {"genuine": pairs.genuine, "impostor": pairs.impostor, "distractor": pairs.distractor}
        parts = {name: plain(asdict(kind) | {"counts": kind.counts.tolist()}) for name, kind in kinds.items()}
        return {"edges": COSINE_EDGES.tolist(), **parts}


class _People(NamedTuple):
    """The gallery's pictures that have a face, sorted by person."""

    numbers: IntArray
    """(k,) the people's numbers, rising."""
    starts: IntArray
    """(k,) each one's first row."""
    rows: FloatArray
    """(g, D)."""


def identify(
    gallery: Rows,
    gallery_people: ArrayLike,
    probes: Rows,
    probe_people: ArrayLike,
    distractors: Rows | None = None,
) -> Identification:
    """Look for every probe and distractor in the gallery, and compare probes with each other and with distractors.

    Memory: gallery and probes once more in float64, and a block of distances at a time.

    Args:
        gallery: (g, D) unit rows, NaN where a picture gave no face.
        gallery_people: (g,) name or number of each picture's person.
        probes: (p, D) likewise; none of the gallery's own pictures should be among them.
        probe_people: (p,) their people, named as in the gallery.
        distractors: (d, D) likewise, of people in neither; None: there are none.

    Raises:
        ValueError: the gallery is empty or without a face, no probe has a face or is mated, widths or lengths
            differ, or rows are no unit rows.
    """
    others = np.empty((0, *np.shape(probes)[1:]), np.float32) if distractors is None else distractors
    failed = _failures({"gallery": gallery, "probes": probes, "distractors": others})
    enrolled, asked = _number(gallery_people, len(gallery), probe_people, len(probes))
    mated = np.isin(asked, enrolled)
    _refuse_nothing(failed, mated)
    people = _by_person(gallery[~failed["gallery"]], enrolled[~failed["gallery"]])
    ranks, nearest = _search(people, probes, asked, failed["probes"])
    nobody = np.full(len(others), _NOBODY)
    other_ranks, other_nearest = _search(people, others, nobody, failed["distractors"])
    all_people = np.unique(enrolled).size
    return Identification(
        gallery_people=all_people,
        lost_people=all_people - people.numbers.size,
        gallery_pictures=len(gallery),
        failed_gallery=int(failed["gallery"].sum()),
        probe_people=asked,
        mated=np.append(mated, nobody != _NOBODY),
        failed=np.append(failed["probes"], failed["distractors"]),
        ranks=np.append(ranks, other_ranks),
        nearest=np.append(nearest, other_nearest),
        similarities=compare_probes(probes, asked, others),
    )


def _failures(parts: dict[str, Rows]) -> dict[str, BoolArray]:
    """Which rows of each part have no face; the others must be unit rows, all of one width."""
    widths = {name: np.shape(part)[1:] for name, part in parts.items()}
    if any(np.ndim(part) != 2 for part in parts.values()) or len(set(widths.values())) > 1:
        shapes = ", ".join(f"{name} {np.shape(part)}" for name, part in parts.items())
        raise ValueError(f"Embeddings of one model are rows of one width. Received: {shapes}.")
    failed = {}
    for name, part in parts.items():
        norms = np.linalg.norm(part, axis=1)
        wrong = np.flatnonzero(np.abs(norms - 1) > 1e-3)
        if wrong.size:
            raise ValueError(
                f"Embeddings must have length 1, or be NaN where a picture gave no face. Row {wrong[0]} of the "
                f"{name} has length {norms[wrong[0]]:.4g} ({wrong.size} of {norms.size} rows are wrong)."
            )
        failed[name] = np.isnan(norms)
    return failed


def _number(
    gallery_people: ArrayLike, pictures: int, probe_people: ArrayLike, probes: int
) -> tuple[IntArray, IntArray]:
    """The people's numbers from 0, equal where the names are."""
    ours, theirs = np.asarray(gallery_people), np.asarray(probe_people)
    if ours.shape != (pictures,) or theirs.shape != (probes,):
        raise ValueError(
            f"Every picture needs its person. Received: {ours.size} people for {pictures} pictures of the gallery, "
            f"{theirs.size} for {probes} probes."
        )
    numbers = np.unique(np.concatenate([ours, theirs]), return_inverse=True)[1]
    return numbers[:pictures], numbers[pictures:]


def _refuse_nothing(failed: dict[str, BoolArray], mated: BoolArray) -> None:
    if not failed["gallery"].size:
        raise ValueError("The gallery is empty: there is nobody to find.")
    if failed["gallery"].all():
        raise ValueError(
            f"None of the gallery's {failed['gallery'].size:,} pictures gave a face: nobody can be found."
        )
    if failed["probes"].all():
        raise ValueError(f"None of the {failed['probes'].size:,} probes gave a face: there is nobody to look for.")
    if not mated.any():
        raise ValueError(
            f"None of the {mated.size:,} probes shows a person of the gallery: no rate of right names is defined. "
            "Check that both name people alike."
        )


def _by_person(rows: Rows, people: IntArray) -> _People:
    order = np.argsort(people, kind="stable")
    numbers, starts = np.unique(people[order], return_index=True)
    return _People(numbers, starts, rows[order].astype(np.float64))


def _search(gallery: _People, rows: Rows, people: IntArray, failed: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Rank of each row's own person, and distance of the nearest one; infinite where there is none."""
    ranks, nearest = np.full(len(rows), np.inf), np.full(len(rows), np.inf)
    there = np.flatnonzero(~failed)
    for block in blocks(there.size, len(gallery.rows)):
        chosen = there[block]
        squares = np.minimum.reduceat(squared_distances(rows[chosen], gallery.rows), gallery.starts, axis=1)
        nearest[chosen] = np.sqrt(squares.min(axis=1), dtype=np.float64)
        own = people[chosen, None] == gallery.numbers
        truth = np.where(own, squares, -np.inf).max(axis=1, keepdims=True)
        ranks[chosen] = np.where(own.any(axis=1), (squares <= truth).sum(axis=1), np.inf)
    return ranks, nearest
