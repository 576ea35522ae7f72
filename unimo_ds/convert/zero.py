"""A training checkpoint -> a Hugging Face folder, without a GPU or the optimizer's moments."""

from pathlib import Path

from unimo_ds.convert.destination import check_free, whole_folder
from unimo_ds.convert.weights import read_weights
from unimo_ds.data.schema import RegionSource
from unimo_ds.model.configuration import configuration_of
from unimo_ds.model.processing import UnimoProcessor, hugging_face_tokenizer
from unimo_ds.objectives.pretraining import UnimoForPreTraining
from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import WordTokenizer
from unimo_ds.train.checkpoint import CheckpointManifest, read_checkpoint, whole_checkpoints
from unimo_ds.train.resume import check_kept
from unimo_ds.train.run_folder import read_config, read_regions, read_tokenizer

PIXELS = "pixels"
"""The one region source that needs no model, so that the processor can cut pictures itself."""


def convert_zero(run: Path, destination: Path, step: int | None = None) -> Path:
    """Writes configuration, safetensors, tokenizer and processor of a run's checkpoint.

    Args:
        run: folder of the run.
        destination: folder to make; it must not exist or be empty.
        step: of the checkpoint; the newest if None.

    Raises:
        ValueError: no such run or checkpoint, damage, a configuration, tokenizer or region source
            that is not the checkpoint's, or a destination that holds something.
    """
    check_free(destination)
    config = read_config(run)
    checkpoint, manifest = find_checkpoint(run, step)
    words, source = read_tokenizer(run, config), read_regions(run, config)
    check_kept(run, checkpoint, manifest, config, words, source)
    model = UnimoForPreTraining(configuration_of(config.model), config.cmcl)
    state = read_weights(checkpoint, model, config.optim)
    # The tied decoder is stored once; everything else must be there.
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if name not in model.all_tied_weights_keys]
    if missing or unexpected:
        raise ValueError(f"{checkpoint}: weights missing {missing}, unknown {unexpected}")
    with whole_folder(destination) as folder:
        model.save_pretrained(folder)
        save_processor(words, source, config.data.max_tokens, folder)
    return destination


def find_checkpoint(run: Path, step: int | None) -> tuple[Path, CheckpointManifest]:
    """The checkpoint of ``step``, or the newest whole one; its files are of the right sizes."""
    found = {path.name: path for path in whole_checkpoints(run)}
    name = max(found, default="") if step is None else f"step_{step:08d}"
    if name not in found:
        have = ", ".join(found) or "none"
        raise ValueError(f"no checkpoint {name} in {run}: it has {have}")
    return found[name], read_checkpoint(found[name])


def save_processor(
    words: WordTokenizer, source: RegionSource | None, max_tokens: int, destination: Path
) -> None:
    """Writes the tokenizer and what makes regions of pictures, as a run's corpora were built."""
    cut = source is not None and source.name == PIXELS
    grid = PixelGrid(**source.parameters) if source and cut else None
    UnimoProcessor(hugging_face_tokenizer(words, max_tokens), grid).save_pretrained(destination)
