"""A `transformers` model in a local folder, with the folder's own preparation of its input.

Nothing is fetched and nothing pickled is read: weights are safetensors, code is transformers' own.
torch and transformers are imported where a model is loaded: other commands do not wait for them.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.readers.encoding import file_text
from data_prep.writer import sha256_of

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
FLOAT32, BFLOAT16 = "float32", "bfloat16"
DEVICES, PRECISIONS = (AUTO, CPU, CUDA), (AUTO, FLOAT32, BFLOAT16)
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
_UNUSED_WEIGHTS = ("pooler.", "vision_model.head.")  # no region's features pass through them


class ModelFolder(NamedTuple):
    """What a model is loaded from and runs on."""

    path: str
    preprocessor: str  # file that says how pictures are resized and normalised
    device: str  # "auto": a GPU if the process that runs the model has one
    precision: str

    @property
    def wants_gpu(self) -> bool:
        """May it run on a GPU?"""
        return self.device != CPU


class Loaded(NamedTuple):
    """A model in this process."""

    model: Any  # torch.nn.Module
    processor: Any  # transformers' image processor, on PIL and numpy
    device: str


def model_folder(
    path: Path | None, preprocessor: Path | None, device: str, precision: str
) -> ModelFolder:
    """The folder, checked as far as it can be without loading it.

    Raises:
        ValueError: no such folder, no safetensors in it, no preprocessor; or a bad argument.
    """
    if path is None:
        raise ValueError("--regions grid and detector need --model DIR, a transformers folder")
    for name, value, known in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise ValueError(f"--{name} {value}: expected one of {', '.join(known)}")
    check_weights(path, "--model")
    if preprocessor is None:
        candidates = [path / name for name in _PREPROCESSORS if (path / name).is_file()]
        if not candidates:
            raise ValueError(
                f"--model {path} has no {_PREPROCESSORS[0]}: how its pictures are resized and "
                "normalised is not known. Name a file with its size, image_mean, image_std and "
                "rescale_factor with --preprocessor"
            )
        preprocessor = candidates[0]
    elif not preprocessor.is_file():
        raise ValueError(f"--preprocessor {preprocessor}: no such file")
    if precision == AUTO:
        precision = BFLOAT16 if _resolved(device) == CUDA else FLOAT32
    return ModelFolder(str(path), str(preprocessor), device, precision)


def check_weights(path: Path, option: str) -> None:
    """Is ``path``, given with ``option``, a folder whose weights can be read without running them?

    Raises:
        ValueError: it is not.
    """
    if not (path / "config.json").is_file():
        raise ValueError(f"{option} {path} is no folder of a transformers model: no config.json")
    if not any(path.glob("*.safetensors")):
        found = ", ".join(sorted(file.name for file in path.glob("*.bin"))) or "no weights"
        raise ValueError(
            f"{option} {path} holds {found}, expected *.safetensors: pickled weights can run code "
            "and are not read. Where you trust them, convert them with "
            f"AutoModel.from_pretrained({str(path)!r}).save_pretrained(NEW_FOLDER)"
        )


def fingerprint(folder: ModelFolder) -> str:
    """SHA-256 of the model's configuration, weights and preprocessor."""
    path = Path(folder.path)
    files = [path / "config.json", *path.glob("*.safetensors"), *path.glob("*.safetensors.*.json")]
    told = [f"{file.name} {sha256_of(file)}" for file in sorted(files)]
    told.append(f"preprocessor {sha256_of(Path(folder.preprocessor))}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


@cache
def load_model(folder: ModelFolder, kind: str) -> Loaded:
    """The model ``transformers.<kind>`` makes of the folder, once in a process.

    Raises:
        ValueError: the folder does not hold such a model, or not all of its weights.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # a backbone named in a configuration is not fetched either
    torch, transformers = _packages()
    device = _resolved(folder.device)
    with _quiet(transformers):
        try:
            model, info = getattr(transformers, kind).from_pretrained(
                folder.path,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=getattr(torch, folder.precision),
                output_loading_info=True,
            )
            processor = _processor(transformers, folder, model.config)
        except (
            OSError,
            ValueError,
            ImportError,
            KeyError,
            RuntimeError,
            TypeError,
            AttributeError,
        ) as error:
            hint = ": pip install unimo-ds[vision]" if isinstance(error, ImportError) else ""
            told = " ".join(str(error).split())
            raise ValueError(f"--model {folder.path} cannot be loaded: {told}{hint}") from error
    missing = [name for name in info["missing_keys"] if not _is_unused(name)]
    if missing or info["mismatched_keys"]:
        wrong = sorted(missing) + sorted(str(key) for key in info["mismatched_keys"])
        raise ValueError(
            f"--model {folder.path} lacks {len(wrong)} weights of {type(model).__name__}, such as "
            f"{wrong[0]}: they would be random numbers"
        )
    model = model.eval().to(device, memory_format=torch.channels_last)
    return Loaded(model, processor, device)


@cache
def load_text_model(path: str, kind: str, complaint: str) -> tuple[Any, Any]:
    """The tokenizer and the model ``transformers.<kind>`` of a folder, on a GPU if there is one;
    once in a process.

    Raises:
        ValueError: ``complaint``, and why the folder cannot be read.
    """
    _, transformers = _packages()
    safely = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **safely)
        model = getattr(transformers, kind).from_pretrained(path, use_safetensors=True, **safely)
    except Exception as error:  # whatever transformers raises for a folder that it cannot read
        raise ValueError(f"{complaint}: {error}") from error
    return tokenizer, model.eval().to(_resolved(AUTO))


def on_device(loaded: Loaded, pixels: Any) -> Any:
    """Tensor [B, 3, H, W] as the model takes it.

    Channels last: MobileNetV2 took 84 ms a picture instead of 153 on one core.
    """
    torch, _ = _packages()
    pixels = pixels.to(loaded.device, loaded.model.dtype)
    return pixels.contiguous(memory_format=torch.channels_last)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inference without gradients in one thread of the CPU: sums over several would depend on how
    many there are."""
    torch, _ = _packages()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def _is_unused(weight: str) -> bool:
    return weight.startswith(_UNUSED_WEIGHTS) or ".pooler." in weight


def _processor(transformers: Any, folder: ModelFolder, config: Any) -> Any:
    """The image processor that the file describes; one that names no class is the model's own.

    Always the one on PIL and numpy: AutoImageProcessor would take torchvision's where it is
    installed, whose resizing gives other numbers; that of transformers 5.17 needs it always.
    """
    values = json.loads(file_text(Path(folder.preprocessor)))
    values = values.get("image_processor", values)
    name = values.get("image_processor_type") or values.get("feature_extractor_type")
    if name is None:
        mapping = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
        name = mapping.get(config.model_type, {}).get("torchvision") or "ViTImageProcessor"
    name = str(name).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    found = getattr(transformers, f"{name.removesuffix('Pil')}Pil", None)
    if not name.removesuffix("Pil").endswith("ImageProcessor") or found is None:
        raise ValueError(f"{folder.preprocessor} names {name}, which needs more than PIL")
    return found.from_dict(values)


def _resolved(device: str) -> str:
    torch, _ = _packages()
    has_gpu = torch.cuda.is_available()
    if device == CUDA and not has_gpu:
        raise ValueError("--device cuda: torch finds no CUDA device here")
    return CUDA if device != CPU and has_gpu else CPU


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' bars and its report of weights, which `load_model` checks itself."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _packages() -> tuple[Any, Any]:
    import torch
    import transformers

    return torch, transformers
