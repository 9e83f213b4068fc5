"""What tests share: drawn people, in folders made once a session; LFW's folder where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from facekit import runtime

runtime.start_quietly()

LFW_PLACES = (os.environ.get("TUPLETFACE_LFW", ""), "data/lfw")


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What commands keep between runs goes to a folder of this session, not to the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def lfw() -> Path:
    """The folder with LFW's images/ and pairsDevTrain.txt."""
    for place in filter(None, LFW_PLACES):
        if (Path(place) / "images").is_dir():
            return Path(place)
    pytest.skip(
        "LFW's pictures are not here; set TUPLETFACE_LFW to the folder that holds images/, or put it at data/lfw"
    )


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole photos of 8 drawn people, 4 each, 250 px. Read only: copy before changing."""
    from facekit.synthetic import write_people

    return write_people(tmp_path_factory.mktemp("photos"), people=8, pictures_per_person=4, seed=3)


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Aligned crops of 16 drawn people, 6 each, 64 px, without a manifest. Read only."""
    from facekit.synthetic import write_people

    return write_people(
        tmp_path_factory.mktemp("crops"), people=16, pictures_per_person=6, seed=5, size=64, crops=True
    )


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with the usual recipe and a threshold. Read only."""
    from config import Config
    from facekit.alignment import CropRecipe
    from facekit.bundle import BundleRecord, Threshold, write_bundle
    from model import build_embedding_model

    runtime.seed_everything(0)
    threshold = Threshold(0.5, "made up", "nobody", 10, 10, 0.1, 0.2, (0.0, 0.3), "2020-01-01")
    record = BundleRecord("fixture", "2020-01-01T00:00:00", "small", 32, 16, CropRecipe(), False, threshold)
    folder = tmp_path_factory.mktemp("runs") / "fixture" / "bundle"
    write_bundle(folder, build_embedding_model(Config(image_size=32, embedding_size=16)), record)
    return folder
