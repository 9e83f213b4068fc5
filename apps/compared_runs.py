"""What `apps.compare` sets side by side: runs, and what was found of their models.

In:  a run's folder, finished or not; train.py and evaluate.py wrote it.
Out: a `Run`, with a `Test` for each list of pairs.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config import Config
from facekit.setting_table import Value, flat
from runs import PLACES, figure_of

TPR_AT_FMR = figure_of("tpr")[0]


@dataclass(frozen=True)
class Test:
    """What evaluate.py found of a run's model on pairs of people whom it has not seen.

    Attributes:
        pairs: which ones, in short.
        auc: area under the ROC curve.
        interval: its 95 % interval; None where it is not known.
        accuracy: share of right decisions at the model's own threshold.
        fmr: the lowest false-match rate of which the pairs say something; None: there is none.
        tpr: share of genuine pairs recognised at it.
    """

    pairs: str
    auc: float
    interval: tuple[float, float] | None
    accuracy: float | None
    fmr: float | None = None
    tpr: float | None = None

    @property
    def text(self) -> str:
        """AUC with its interval, accuracy, and TPR."""
        within = f" ({self.interval[0]:.3f} to {self.interval[1]:.3f})" if self.interval else ""
        tpr = "" if self.fmr is None else f", {figure_text(self.tpr)} at {self.fmr:g}"
        return f"{self.auc:.3f}{within}, {figure_text(self.accuracy)}{tpr}"


def _own_accuracy(report: Mapping[str, Any]) -> float | None:
    """At the model's own threshold: the report's headline is that of folds where the pairs file has them."""
    at = report.get("at_threshold")
    return at.get("accuracy") if at else None


def _lowest_rate(report: Mapping[str, Any]) -> tuple[float, float] | tuple[None, None]:
    """The lowest false-match rate of which the pairs say something, and the TPR there."""
    claims = [(claim["fpr"], claim["tpr"]) for claim in report.get("tpr_at_fpr", []) if claim["tpr"] is not None]
    return min(claims, default=(None, None))


@dataclass(frozen=True)
class Run:
    """A run's folder, read.

    Attributes:
        name: what to call it.
        settings: flat, without those that only say where it lives.
        planned: epochs that it was to have.
        history: a row of figures for each epoch.
        people: digest of whom it was validated on; None: not known.
        tests: by the pairs.
        finished: whether it has its product.
        product: the figures of the model in its bundle; empty where there is none.
        faults: sentences on what could not be read.
    """

    name: str
    settings: Mapping[str, Value]
    planned: int
    history: Sequence[Mapping[str, float]]
    people: str | None
    tests: Mapping[str, Test]
    finished: bool
    product: Mapping[str, Any]
    faults: Sequence[str] = field(default_factory=list)

    @property
    def best(self) -> Mapping[str, float]:
        """The figures of the epoch that the run's `monitor` calls the best; empty where no epoch has ended."""
        monitor, larger = figure_of(str(self.settings["monitor"]))
        sign = 1 if larger else -1
        judged = [row for row in self.history if math.isfinite(row.get(monitor, math.nan))]
        return max(judged, key=lambda row: sign * row[monitor], default={})

    @property
    def figures(self) -> Mapping[str, Any]:
        """Those of the product, which may have a cohort or lie between epochs; else those of the best epoch."""
        return {**self.best, **self.product}

    @property
    def tpr_name(self) -> str | None:
        """What to call its true-match rate, by its rate; None: it has none."""
        return f"TPR@FMR {self.settings['monitor_fmr']:g}" if self.figures.get(TPR_AT_FMR) is not None else None

    @property
    def speed(self) -> float | None:
        """Pictures a second, the median of the epochs: the first one compiles."""
        speeds = [row["images_per_second"] for row in self.history if "images_per_second" in row]
        return statistics.median(speeds) if speeds else None

    @property
    def done(self) -> str:
        """Epochs that have ended, and of how many where some are missing."""
        done = self.epochs_done
        return str(done) if done == self.planned else f"{done} of {self.planned}"

    @property
    def epochs_done(self) -> int:
        """Epochs that have ended; the start, epoch 0 of a run from weights, is none."""
        return sum(row["epoch"] > 0 for row in self.history)


def read_run(folder: Path, name: str) -> Run:
    """Read a run's folder.

    Raises:
        ValueError: its settings cannot be read; all else that cannot is said in the run's `faults`.
    """
    saved = _read_json(folder / "config.json")
    settings = {**Config().model_dump(mode="json"), **saved}
    faults: list[str] = []
    data = {"digests": {}, **_tried(faults, {}, _read_json, folder / "data.json")}
    # As it was found, not as it was typed: one folder has one name.
    settings["train_dir"] = data.get("train_dir", settings["train_dir"])
    history = _tried(faults, [], _read_history, folder / "history.csv")
    tests = [_tried(faults, None, _read_test, path) for path in sorted(folder.glob("*/report.json"))]
    try:
        planned = sum(stage["epochs"] for stage in settings["stages"]) or int(settings["epochs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'config.json'}: is damaged, its epochs cannot be counted ({error!r})."
        ) from None
    record = folder / "bundle" / "bundle.json"
    finished = record.exists()
    bundle = _tried(faults, {}, _read_json, record) if finished else {}
    if not finished:
        done = sum(row["epoch"] > 0 for row in history)
        faults.append(f"{name} is not finished: {done} of {planned} epochs. train.py --resume goes on.")
    return Run(
        name=name,
        settings=_kept({key: value for key, value in flat(settings).items() if key not in PLACES}, bundle),
        planned=planned,
        history=history,
        people=dict(data["digests"]).get("validation"),
        tests={test.pairs: test for test in tests if test},
        finished=finished,
        product=bundle.get("figures") or {},
        faults=faults,
    )


def _kept(settings: dict[str, Value], bundle: Mapping[str, Any]) -> dict[str, Value]:
    """Settings, with a word at what was tried and is not in the bundle: it was no better."""
    training = bundle.get("training") or {}
    for name, record in (("cohort", "cohort"), ("interpolate", "interpolation")):
        if settings[name] and record in training and not training[record]:
            settings[name] = f"{settings[name]} (left out)"
    return settings


def _tried(faults: list[str], instead: Any, read: Callable[[Path], Any], path: Path) -> Any:
    """What a file holds; where it cannot be read, a fault and what stands in."""
    try:
        return read(path)
    except ValueError as error:
        faults.append(str(error))
        return instead


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise ValueError(f"{path}: is damaged, it is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: is damaged, it holds no JSON object.")
    return values


def _read_history(path: Path) -> list[dict[str, float]]:
    """The rows of history.csv; none where no epoch has ended."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is damaged ({error}); the run's figures are left out.") from None


def _read_test(path: Path) -> Test | None:
    """What a report of evaluate.py says; None where it is about something else than pairs."""
    report = _read_json(path)
    if "auc" not in report:
        return None
    try:
        name = Path(report.get("pairs_file") or report.get("images") or path.parent).name
        pairs = f"{name}, {report['genuine']:,} + {report['impostor']:,} pairs"
        low, high = (report.get("intervals") or {}).get("auc") or (None, None)
        interval = None if low is None or high is None else (float(low), float(high))
        return Test(pairs, float(report["auc"]), interval, _own_accuracy(report), *_lowest_rate(report))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is no report of evaluate.py ({error!r}); it is left out.") from None


def figure_text(value: float | None) -> str:
    """Three decimals; "-" where there is none."""
    return "-" if value is None else f"{value:.3f}"
