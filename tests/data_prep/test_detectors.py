"""`--regions detector`: boxes, classes and states of real detectors, thresholds, batches."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from data_prep.regions.detector import detect, scores_and_classes
from data_prep.regions.model_folder import model_folder
from tests.data_prep.tiny_models import detector_model, save
from unimo_ds.data.schema import read_manifest

DETR_LIKE = {
    "image_processor_type": "DetrImageProcessor",
    "size": {"shortest_edge": 48, "longest_edge": 96},
}
PREPROCESSORS = {
    "detr": DETR_LIKE,
    "conditional_detr": DETR_LIKE | {"image_processor_type": "ConditionalDetrImageProcessor"},
    "yolos": DETR_LIKE | {"image_processor_type": "YolosImageProcessor"},
    "rt_detr": {
        "image_processor_type": "RTDetrImageProcessor",
        "size": {"height": 64, "width": 64},
    },
}


@pytest.fixture
def photos(tmp_path):
    """Pictures of two shapes, and one that is broken."""
    rng = np.random.default_rng(7)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate(((40, 30), (30, 40), (40, 30), (60, 45))):
        array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{number}.png")
    (folder / "1b.png").write_bytes(b"broken")
    return folder


def called_directly(model, folder, path):
    """The model's own outputs for one picture, prepared by the folder's own preprocessor."""
    named = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    processor = getattr(transformers, f"{named}Pil").from_pretrained(folder)
    inputs = processor(Image.open(path).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        return processor, model(pixel_values=inputs["pixel_values"])


@pytest.mark.parametrize("kind", PREPROCESSORS)
def test_rows_are_what_the_detector_says(kind, prep, photos, read_rows, quarantine, tmp_path):
    model = detector_model(kind)
    folder = save(model, tmp_path / "m", **PREPROCESSORS[kind])
    arguments = ("--regions", "detector", "--model", folder, "--max-bad", 0.5)
    more = ("--kept-classes", 2, "--min-score", 0.0, "--max-regions", 12)
    ran = prep("images", tmp_path / "o", photos, *arguments, *more)
    assert ran.code == 0, ran.err
    rows = read_rows(tmp_path / "o")
    assert [row["id"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    assert [bad["reason"] for bad in quarantine(tmp_path / "o")] == ["broken_image"]
    for row in rows:
        processor, out = called_directly(model, folder, photos / row["id"])
        size = [(row["height"], row["width"])]
        (told,) = processor.post_process_object_detection(out, threshold=0.0, target_sizes=size)
        logits = out.logits[0]
        if logits.shape[1] == 5:
            scores = logits.softmax(-1)[:, :-1].max(-1).values
            probs = logits[:, :-1].softmax(-1)
        else:
            scores = logits.sigmoid().max(-1).values
            probs = logits.sigmoid() / logits.sigmoid().sum(-1, keepdim=True)
        order = torch.argsort(-scores, stable=True)[:12]
        states = out.last_hidden_state[0][-len(logits) :][order]
        assert np.allclose(np.reshape(row["features"], (12, 16)), states, atol=5e-3)
        top = probs[order].topk(2)
        assert np.allclose(np.reshape(row["class_probs"], (12, 2)), top.values, atol=1e-3)
        boxes = np.reshape(row["boxes"], (12, 5))
        assert np.allclose(boxes[:, 4], np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1))
        edge = np.array([row["width"], row["height"]] * 2)
        best = told["boxes"][told["scores"].argmax()].numpy()
        assert np.allclose(boxes[0, :4] * edge, np.clip(best, 0, edge), atol=0.05)
        assert row["class_ids"][0] == int(told["labels"][told["scores"].argmax()])
    source = read_manifest(tmp_path / "o").regions
    assert (source.name, source.num_classes, source.kept_classes) == ("detector", 4, 2)
    assert (source.feature_size, source.max_regions) == (16, 12)
    assert source.parameters["min_score"] == 0.0 and source.parameters["min_regions"] == 10
    assert (tmp_path / "o" / "class_names.txt").read_text() == "cat\ndog\nkite\ncup\n"
    assert prep("verify", tmp_path / "o").code == 0


def test_neighbours_in_a_batch_do_not_matter(photos, tmp_path):
    folder = save(detector_model("yolos"), tmp_path / "m", **PREPROCESSORS["yolos"])
    where = model_folder(folder, None, "cpu", "auto")
    pictures = [Image.open(photos / f"{n}.png").convert("RGB") for n in range(4)]
    together = detect(where, pictures)
    for picture, found in zip(pictures, together, strict=True):
        (alone,) = detect(where, [picture])
        for one, other in zip(alone, found, strict=True):
            assert np.allclose(one, other, atol=1e-5)


def test_how_many_regions_are_kept(prep, photos, read_rows, tmp_path):
    folder = save(detector_model("detr"), tmp_path / "m", **PREPROCESSORS["detr"])
    arguments = ("--regions", "detector", "--model", folder, "--max-bad", 0.5)
    _, out = called_directly(detector_model("detr"), folder, photos / "0.png")
    scores = np.sort(out.logits[0].softmax(-1)[:, :-1].max(-1).values.numpy())[::-1]
    count = 11 + int(np.argmax(scores[10:20] - scores[11:21]))  # where they are furthest apart
    middle = float(scores[count - 1] + scores[count]) / 2
    for number, (more, wanted) in enumerate(
        (
            (("--min-score", 1.0), 10),
            (("--min-score", 1.0, "--min-regions", 3), 3),
            (("--min-score", middle), count),
            (("--min-score", middle, "--max-regions", 10), 10),
            (("--min-score", 0), 30),
            (("--min-score", 1.0, "--min-regions", 50), 30),
        )
    ):
        out = tmp_path / str(number)
        assert prep("images", out, photos, *arguments, *more).code == 0
        assert read_rows(out)[0]["num_regions"] == wanted
    for more, told in (
        (("--min-score", 2), "not within 0 and 1"),
        (("--min-regions", 20, "--max-regions", 10), "more than --max-regions"),
        (("--boxes", "b.json"), "belongs to --regions grid"),
    ):
        ran = prep("images", tmp_path / "x", photos, *arguments, *more)
        assert ran.code == 2 and told in ran.err


def test_no_object_is_no_class_and_sure_of_nothing_still_has_classes():
    logits = np.array([[2.0, 0.0, 200.0], [2.0, 0.0, -200.0]])
    scores, probs = scores_and_classes(logits, 2)
    share = 1 / (1 + np.exp(-2))
    assert np.allclose(scores, [0, share]) and np.allclose(probs, [[share, 1 - share]] * 2)
    scores, probs = scores_and_classes(np.array([[0.0, -40.0], [-400.0, -401.0]]), 2)
    assert np.allclose(scores, [0.5, 0]) and np.allclose(probs.sum(axis=1), 1)
    assert probs[1, 0] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)


def test_an_encoder_is_no_detector(prep, photos, tmp_path):
    from tests.data_prep.tiny_models import vision_model

    folder = save(vision_model("vit"), tmp_path / "m")
    ran = prep("images", tmp_path / "o", photos, "--regions", "detector", "--model", folder)
    assert ran.code == 2 and "cannot be loaded" in ran.err
