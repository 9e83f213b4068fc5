"""The projector's files, read as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from facekit import projector
from facekit.images import read_image


def written(folder: Path, count: int = 5, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Points and pictures, written to a folder; each picture is grey, the darker the earlier."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(count, 7)).astype(np.float32)
    images = np.repeat(np.arange(10, 10 + count, dtype=np.uint8), side * side * 3).reshape(count, side, side, 3)
    people = [f"p{n // 2}" for n in range(count)]
    projector.write_faces(folder, people, [f"p\t{n}.jpg" for n in range(count)], images)
    assert not (folder / projector.CONFIG).exists()  # no points yet
    projector.write_points(folder, embeddings, side)
    return embeddings, images


def test_the_config_names_files_that_tensorboard_can_read(tmp_path):
    from tensorboard.plugins.projector import projector_plugin
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    embeddings, _ = written(tmp_path)
    config = text_format.Parse((tmp_path / projector.CONFIG).read_text(), ProjectorConfig())
    (shown,) = config.embeddings
    tensor = projector_plugin._read_tensor_tsv_file(str(tmp_path / shown.tensor_path))
    np.testing.assert_allclose(tensor, embeddings, rtol=1e-4)
    lines = (tmp_path / shown.metadata_path).read_text().splitlines()
    assert lines[0] == "person\tfile" and lines[3] == "p1\tp 2.jpg" and len(lines) == 6
    assert (tmp_path / shown.sprite.image_path).exists()
    assert list(shown.sprite.single_image_dim) == [32, 32]


@pytest.mark.parametrize(("count", "across"), [(1, 1), (4, 2), (5, 3), (9, 3)])
def test_pictures_lie_row_by_row_in_a_square(tmp_path, count, across):
    _, images = written(tmp_path, count)
    sprite = read_image(tmp_path / projector.FOLDER / "sprite.png")
    assert sprite.shape == (32 * across, 32 * across, 3)
    for place, image in enumerate(images):
        row, column = divmod(place, across)
        np.testing.assert_array_equal(sprite[32 * row : 32 * row + 32, 32 * column : 32 * column + 32], image)
    assert count == across**2 or (sprite[-1, -1] == 255).all()


@pytest.mark.parametrize(("count", "side", "cell"), [(100, 32, 32), (1000, 112, 64), (40_000, 64, 40)])
def test_the_sprite_is_never_larger_than_tensorboard_draws(count, side, cell):
    assert projector.cell_size(count, side) == cell
    assert cell * np.ceil(np.sqrt(count)) <= 8192
