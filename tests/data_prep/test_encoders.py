"""`--regions grid`: every kind of vision encoder, whole and shrunk maps, batches, refusals."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.readers.images import Picture
from data_prep.regions.encoder import encoder_of
from data_prep.regions.model_folder import load_model, model_folder
from tests.data_prep.tiny_models import SIDE, detector_model, pixels, save, vision_model
from unimo_ds.data.schema import read_manifest

# kind -> tokens before the patches, cells a side; None: the model's own map
KINDS = {
    "vit": (1, 4),
    "deit": (2, 4),
    "clip_vision": (1, 4),
    "clip": (1, 4),
    "siglip": (0, 4),
    "dinov2": (1, 4),
    "registers": (5, 4),
    "swin": (0, 4),
    "resnet": (None, 4),
    "convnext": (None, 4),
    "mobilenet_v2": (None, 2),
}


def opened(folder, batch_size=4):
    return encoder_of(model_folder(folder, None, "cpu", "auto"), batch_size)


def states_of(model, path):
    """float32 [D, h, w] or [N, D], straight out of the model."""
    encoder = getattr(model, "vision_model", model)
    with torch.no_grad():
        return encoder(pixels(path)).last_hidden_state[0]


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_the_states_of_their_patches(kind, make_pictures, tmp_path):
    model = vision_model(kind)
    extra, side = KINDS[kind]
    encoder = opened(save(model, tmp_path / "m"))
    (path,) = make_pictures(tmp_path / "p", 1)
    (found,) = encoder.encoded([picture(path)])
    states = states_of(model, path)
    if extra is not None:
        states = states[extra:].T.reshape(-1, side, side)
    assert found.cells.shape == (len(states), side, side) == encoder.probe()
    assert np.allclose(found.cells, states.numpy(), atol=1e-5)


def picture(path):
    return Picture(path.name, str(path), str(path.parent), 1, path.stat().st_size, 0)


@pytest.fixture
def vit(tmp_path):
    return save(vision_model("vit"), tmp_path / "vit")


def test_grid_corpus(prep, make_pictures, read_rows, vit, tmp_path):
    paths = make_pictures(tmp_path / "p", 5)
    (tmp_path / "p" / "broken.png").write_bytes(b"none")
    Image.new("L", (40, 20), 90).save(tmp_path / "p" / "wide.png")
    arguments = ("--regions", "grid", "--model", vit, "--num-classes", 6, "--max-bad", 0.5)
    for name, more in (("a", ()), ("b", ("--batch-size", 3)), ("c", ("--device", "cpu"))):
        ran = prep("images", tmp_path / name, tmp_path / "p", *arguments, *more)
        assert ran.code == 0, ran.err
    rows = read_rows(tmp_path / "a")
    assert [row["id"] for row in rows] == [*(path.name for path in paths), "wide.png"]
    assert (rows[-1]["width"], rows[-1]["height"]) == (40, 20)
    model = vision_model("vit")
    for row, path in zip(rows, [*paths, tmp_path / "p" / "wide.png"], strict=True):
        wanted = states_of(model, path)[1:].numpy()
        assert np.allclose(np.reshape(row["features"], (16, 16)), wanted, atol=2e-3)
        boxes = np.reshape(row["boxes"], (16, 5))
        assert np.allclose(boxes[6], [0.5, 0.25, 0.75, 0.5, 1 / 16])
    assert np.allclose(
        [row["features"] for row in rows],
        [r["features"] for r in read_rows(tmp_path / "b")],
        atol=4e-3,
    )
    source = read_manifest(tmp_path / "a").regions
    assert (source.name, source.feature_size, source.max_regions) == ("grid", 16, 16)
    assert source.parameters["picture"] == [SIDE, SIDE] and source.parameters["grid"] == [4, 4]
    assert source.parameters["precision"] == "float32"
    assert source == read_manifest(tmp_path / "c").regions
    assert prep("verify", tmp_path / "a").code == 0


def test_workers_change_no_byte(prep, make_pictures, contents, vit, tmp_path):
    make_pictures(tmp_path / "p", 8)
    arguments = ("--regions", "grid", "--model", vit, "--rows-per-shard", 4)
    for workers, more in ((1, ("--num-classes", 6)), (2, ("--visual-words", tmp_path / "w.npy"))):
        out = tmp_path / f"by{workers}"
        ran = prep("images", out, tmp_path / "p", *arguments, *more, "--workers", workers)
        assert ran.code == 0, ran.err
        shutil.copy(out / "visual_words.npy", tmp_path / "w.npy")
    assert contents(tmp_path / "by1") == contents(tmp_path / "by2")


def test_maps_are_shrunk_to_a_grid(prep, make_pictures, read_rows, vit, tmp_path):
    paths = make_pictures(tmp_path / "p", 3)
    arguments = ("--regions", "grid", "--model", vit, "--num-classes", 4)
    assert prep("images", tmp_path / "o", tmp_path / "p", *arguments, "--grid", 2).code == 0
    model = vision_model("vit")
    for row, path in zip(read_rows(tmp_path / "o"), paths, strict=True):
        cells = states_of(model, path)[1:].numpy().reshape(2, 2, 2, 2, 16).mean(axis=(1, 3))
        assert np.allclose(np.reshape(row["features"], (2, 2, 16)), cells, atol=2e-3)
        assert np.allclose(np.reshape(row["boxes"], (4, 5))[1], [0.5, 0, 1, 0.5, 0.25])
    for more, told in (
        (("--grid", 5), "4 x 4"),
        (("--max-regions", 15), "--grid 3"),
    ):
        ran = prep("images", tmp_path / "x", tmp_path / "p", *arguments, *more)
        assert ran.code == 2 and told in ran.err


def test_the_crop_of_a_preprocessor_is_not_cut_off(make_pictures, tmp_path):
    crop = {"do_center_crop": True, "size": {"shortest_edge": 40}}
    crop |= {"crop_size": {"height": SIDE, "width": SIDE}}
    encoder = opened(save(vision_model("clip_vision"), tmp_path / "m", **crop))
    assert (encoder.height, encoder.width) == (SIDE, SIDE)
    edged = Image.new("RGB", (100, 20))
    edged.paste((255, 255, 255), (0, 0, 10, 20))  # a centre crop would lose it
    edged.save(tmp_path / "edge.png")
    Image.new("RGB", (100, 20)).save(tmp_path / "plain.png")
    two = [picture(tmp_path / f"{name}.png") for name in ("edge", "plain")]
    edge, plain = encoder.encoded(two)
    assert np.abs(edge.cells - plain.cells).max() > 0.01


def test_bfloat16_is_near(make_pictures, vit, tmp_path):
    (path,) = make_pictures(tmp_path / "p", 1)
    folder = model_folder(vit, None, "cpu", "bfloat16")
    (found,) = encoder_of(folder, 1).encoded([picture(path)])
    wanted = states_of(vision_model("vit"), path)[1:].T.reshape(16, 4, 4).numpy()
    error = np.abs(found.cells - wanted).max()
    assert 1e-5 < error < 0.1


@pytest.mark.parametrize("kind", ["detr", "yolos"])
def test_detectors_are_no_encoders_of_a_grid(kind, tmp_path):
    size = {"height": 48, "width": 64} if kind == "yolos" else {"height": SIDE, "width": SIDE}
    folder = save(detector_model(kind), tmp_path / "m", size=size)
    with pytest.raises(ValueError, match="--regions detector"):
        opened(folder).probe()


def test_model_folders_that_are_refused(prep, make_pictures, vit, tmp_path):
    make_pictures(tmp_path / "p", 1)

    def refused(model, *more):
        ran = prep(
            "images", tmp_path / "x", tmp_path / "p", "--regions", "grid", "--model", model, *more
        )
        assert ran.code == 2, ran.err
        return ran.err

    def changed(name, change):
        folder = tmp_path / name
        shutil.copytree(vit, folder)
        change(folder)
        return folder

    def pickled(folder):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    def remote(folder):
        config = json.loads((folder / "config.json").read_text())
        auto = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
        changes = {"auto_map": auto, "model_type": "evil"}
        (folder / "config.json").write_text(json.dumps(config | changes))
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")

    def lacking(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))

    assert "no folder" in refused(tmp_path / "absent")
    assert "save_pretrained" in refused(changed("pickled", pickled))
    assert "cannot be loaded" in refused(changed("remote", remote))
    assert not (tmp_path / "ran").exists()
    assert "would be random" in refused(changed("lacking", lacking))
    plain = changed("plain", lambda f: (f / "preprocessor_config.json").unlink())
    assert "--preprocessor" in refused(plain)
    named = tmp_path / "named.json"
    shutil.copy(vit / "preprocessor_config.json", named)
    arguments = ("--regions", "grid", "--model", plain, "--num-classes", 4)
    ran = prep("images", tmp_path / "o", tmp_path / "p", *arguments, "--preprocessor", named)
    assert ran.code == 0, ran.err
    assert "expected one of auto" in refused(vit, "--device", "tpu")
    assert (
        "belongs to --regions grid or detector"
        in prep("images", tmp_path / "x", tmp_path / "p", "--model", vit).err
    )
    if not torch.cuda.is_available():
        assert "no CUDA device" in refused(vit, "--device", "cuda")


def test_another_model_does_not_go_on_with_a_build(prep, make_pictures, vit, tmp_path):
    make_pictures(tmp_path / "p", 3)
    (tmp_path / "p" / "broken.png").write_bytes(b"none")
    arguments = ("images", tmp_path / "o", tmp_path / "p", "--regions", "grid", "--model")
    more = ("--num-classes", 4, "--max-bad")
    assert prep(*arguments, vit, *more, 0).code == 3
    other = vision_model("vit")
    with torch.no_grad():
        other.layernorm.bias.add_(1)
    save(other, tmp_path / "other")
    ran = prep(*arguments, tmp_path / "other", *more, 0.5, "--resume")
    assert ran.code == 2 and "regions.model_sha256 was" in ran.err
    assert prep(*arguments, vit, *more, 0.5, "--resume").code == 0


def test_a_model_is_loaded_once(vit):
    folder = model_folder(vit, None, "cpu", "auto")
    assert load_model(folder, "AutoModel") is load_model(folder, "AutoModel")
    assert not folder.wants_gpu and model_folder(vit, None, "auto", "auto").wants_gpu
