"""Choice among faces, batches that are safe, and the reasons for no face."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from facekit.alignment import CropRecipe
from facekit.detection import Face, MtcnnDetector, choose_face, find_faces
from facekit.images import read_image


def face(x, y, side, confidence=0.99) -> Face:
    points = np.array([[x, y]] * 5, np.float32)
    return Face(np.array([x, y, side, side], np.float32), confidence, points)


CORNER = face(0, 0, 60)
CENTRE = face(85, 85, 30, confidence=0.95)
SURE = face(150, 150, 20, confidence=0.999)


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [("largest_centred", CENTRE), ("largest", CORNER), ("most_confident", SURE), ("only", None)],
)
def test_each_policy_chooses(policy, chosen):
    assert choose_face([CORNER, CENTRE, SURE], (200, 200, 3), policy) is chosen


def test_largest_centred_weighs_area_against_distance():
    # 60^2 - 2 * (20^2 + 20^2) = 2000 against 30^2 - 0 = 900.
    near = face(50, 50, 60)
    assert choose_face([near, CENTRE], (200, 200, 3), "largest_centred") is near


def test_one_face_is_the_only_one():
    assert choose_face([CENTRE], (200, 200, 3), "only") is CENTRE


def test_an_unknown_policy_lists_the_known():
    with pytest.raises(ValueError, match="largest_centred, largest, most_confident, only"):
        choose_face([CENTRE], (200, 200, 3), "biggest")


class Fixed:
    """A detector that finds what it was told to, and remembers the sizes it saw."""

    def __init__(self, faces):
        self.faces, self.shapes = faces, []

    def detect(self, images):
        self.shapes += [image.shape for image in images]
        return [self.faces for _ in images]


BLANK = np.zeros((200, 200, 3), np.uint8)


@pytest.mark.parametrize(
    ("faces", "reason", "count"),
    [([], "no_face", 0), ([face(0, 0, 9, 0.5)], "low_confidence", 1), ([CORNER, CENTRE], "many_faces", 2)],
)
def test_no_face_has_a_reason(faces, reason, count):
    finding = find_faces([BLANK], Fixed(faces), CropRecipe(choose="only"))[0]
    assert (finding.face, finding.reason, finding.count) == (None, reason, count)


def test_unsure_faces_do_not_compete():
    finding = find_faces([BLANK], Fixed([face(0, 0, 150, 0.5), CENTRE]), CropRecipe())[0]
    assert finding.face is not None and finding.face.confidence == CENTRE.confidence and finding.count == 2


def test_a_large_picture_is_shrunk_and_its_face_given_in_its_own_pixels():
    detector = Fixed([face(10, 20, 30)])
    finding = find_faces([np.zeros((400, 800, 3), np.uint8)], detector, CropRecipe(max_side=200))[0]
    assert detector.shapes == [(100, 200, 3)]
    assert finding.face is not None
    np.testing.assert_allclose(finding.face.box, [40, 80, 120, 120])
    np.testing.assert_allclose(finding.face.landmarks[0], [40, 80])


@pytest.fixture(scope="module")
def mtcnn() -> MtcnnDetector:
    return MtcnnDetector()


def found(faces) -> list[bytes]:
    return [face.box.tobytes() + face.landmarks.tobytes() + bytes(str(face.confidence), "ascii") for face in faces]


def test_mtcnn_says_the_very_same_alone_and_beside_any_others(mtcnn, photos):
    images = [read_image(path) for path in sorted(photos.glob("*/*.jpg"))[:6]]
    blank = np.zeros_like(images[0])
    together = mtcnn.detect([*images, blank, blank[:100], images[0][:, :200], blank])
    assert together[6] == together[7] == together[9] == []
    for image, faces in zip(images, together[:6], strict=True):
        assert found(mtcnn.detect([image])[0]) == found(faces) and len(faces) >= 1
    backwards = mtcnn.detect(images[::-1])[::-1]
    assert [found(faces) for faces in backwards] == [found(faces) for faces in together[:6]]


def test_mtcnn_of_no_pictures_is_an_empty_list(mtcnn):
    assert mtcnn.detect([]) == []


def test_mtcnns_left_eye_is_on_the_left_of_the_picture(mtcnn, photos):
    image = read_image(sorted(photos.glob("*/*.jpg"))[0])
    points = mtcnn.detect([image])[0][0].landmarks
    assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0] and points[0, 1] < points[3, 1]


def test_whole_pixels_are_the_fine_ones_rounded(mtcnn, photos):
    image = read_image(sorted(photos.glob("*/*.jpg"))[1])
    (rounded,), (fine,) = mtcnn.detect([image])[0], MtcnnDetector(rounded=False).detect([image])[0]
    assert (fine.box % 1).any() and (fine.landmarks % 1).any()
    np.testing.assert_array_equal(rounded.box, fine.box.round())
    np.testing.assert_array_equal(rounded.landmarks, fine.landmarks.round())
    assert rounded.box.dtype == rounded.landmarks.dtype == np.float32


def test_detecting_leaves_tensorflow_out_and_the_threads_as_they_were():
    code = (
        "import sys, numpy as np\n"
        "from threadpoolctl import threadpool_info\n"
        "before = threadpool_info()\n"
        "from facekit.detection import MtcnnDetector\n"
        "MtcnnDetector().detect([np.zeros((60, 60, 3), np.uint8)])\n"
        "same = [pool for pool in threadpool_info() if pool in before] == before\n"
        "sys.exit(0 if same and not {'tensorflow', 'mtcnn'} & set(sys.modules) else 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
