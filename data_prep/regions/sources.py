"""Where the regions of an images corpus come from: the reader that a plan asks for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from data_prep.quarantine import Bad
from data_prep.regions import detector
from data_prep.regions.class_names import load_vocabulary
from data_prep.regions.encoder import encoder_of, encoder_parameters
from data_prep.regions.given_boxes import with_boxes
from data_prep.regions.maps import BoxReader, GridReader, box_parameters
from data_prep.regions.model_folder import ModelFolder, fingerprint, model_folder
from data_prep.regions.pixels import PixelReader
from data_prep.regions.plan import DETECTOR, GRID, PIXELS, RegionPlan
from data_prep.regions.precomputed import table_reader
from data_prep.regions.rows import RegionReader
from unimo_ds.pixels import PixelGrid


class Source(NamedTuple):
    """What makes regions of which records, and what the manifest says of it."""

    reader: RegionReader
    records: Sequence[Any]
    bad: Sequence[Bad]
    fields: dict[str, Any]  # of `RegionSource`; num_classes 0: take visual words
    class_names: Sequence[str] = ()  # of all classes, where they have names


def region_source(records: Sequence[Any], bad: Sequence[Bad], plan: RegionPlan) -> Source:
    """The source of ``plan`` for these pictures, or rows of feature tables.

    Raises:
        ValueError: a model, a table or a file of boxes that cannot be used, or that does not fit.
    """
    if plan.regions == PIXELS:
        return _pixels(records, bad, plan)
    if plan.regions == GRID:
        return _boxed(records, bad, plan) if plan.boxes else _grid(records, bad, plan)
    if plan.regions == DETECTOR:
        return _detector(records, bad, plan)
    return _precomputed(records, bad, plan)


def _pixels(records: Sequence[Any], bad: Sequence[Bad], plan: RegionPlan) -> Source:
    grid = PixelGrid(grid=plan.pixel_grid, patch=plan.patch)
    fields = {
        "name": plan.regions,
        "feature_size": grid.feature_size,
        "num_classes": 0,
        "kept_classes": 1,
        "max_regions": grid.num_regions,
        "parameters": {"grid": grid.grid, "patch": grid.patch},
    }
    return Source(PixelReader(grid), records, bad, fields)


def _grid(records: Sequence[Any], bad: Sequence[Bad], plan: RegionPlan) -> Source:
    folder = _model(plan)
    encoder = encoder_of(folder, plan.batch_size)
    size, rows, columns = encoder.probe()
    if plan.grid is not None:
        if not 1 <= plan.grid <= min(rows, columns):
            raise ValueError(
                f"--grid {plan.grid}: the model's map is {rows} x {columns}, expected 1 to "
                f"{min(rows, columns)}, or no --grid for all its cells"
            )
        rows = columns = plan.grid
    if rows * columns > plan.max_regions:
        raise ValueError(
            f"the model's map is {rows} x {columns} = {rows * columns} regions, --max-regions is "
            f"{plan.max_regions}: make it smaller with --grid {int(plan.max_regions**0.5)}, or "
            "raise --max-regions"
        )
    fields = {
        "name": plan.regions,
        "feature_size": size,
        "num_classes": 0,
        "kept_classes": 1,
        "max_regions": rows * columns,
        "parameters": {
            "model_sha256": fingerprint(folder),
            **encoder_parameters(encoder),
            "grid": [rows, columns],
        },
    }
    return Source(GridReader(encoder, plan.grid or 0), records, bad, fields)


def _boxed(records: Sequence[Any], bad: Sequence[Bad], plan: RegionPlan) -> Source:
    assert plan.boxes is not None
    if plan.grid is not None:
        raise ValueError("--grid and --boxes are two ways to make regions of a map: choose one")
    folder = _model(plan)
    encoder = encoder_of(folder, plan.batch_size)
    size, _, _ = encoder.probe()
    vocabulary = load_vocabulary(str(plan.class_names)) if plan.class_names else None
    boxed, lost = with_boxes(records, plan.boxes, vocabulary)
    fields = {
        "name": plan.regions,
        "feature_size": size,
        "num_classes": len(vocabulary.lines) if vocabulary else 0,
        "kept_classes": 1,
        "max_regions": plan.max_regions,
        "parameters": {
            "model_sha256": fingerprint(folder),
            **encoder_parameters(encoder),
            **box_parameters(),
        },
    }
    names = vocabulary.lines if vocabulary else ()
    return Source(BoxReader(encoder, plan.max_regions), boxed, [*bad, *lost], fields, names)


def _detector(records: Sequence[Any], bad: Sequence[Bad], plan: RegionPlan) -> Source:
    folder = _model(plan)
    size, classes = detector.probe(folder)
    kept = min(plan.kept_classes, classes)
    chosen = {
        "min_score": plan.min_score,
        "min_regions": plan.min_regions,
        "max_regions": plan.max_regions,
    }
    reader = detector.DetectorReader(folder, classes, kept, batch_size=plan.batch_size, **chosen)
    fields = {
        "name": plan.regions,
        "feature_size": size,
        "num_classes": classes,
        "kept_classes": kept,
        "max_regions": plan.max_regions,
        "parameters": {
            "model_sha256": fingerprint(folder),
            **detector.detector_parameters(folder),
            "min_score": plan.min_score,
            "min_regions": plan.min_regions,
        },
    }
    return Source(reader, records, bad, fields, detector.class_names(folder))


def _precomputed(records: Sequence[Any], bad: Sequence[Bad], plan: RegionPlan) -> Source:
    names = str(plan.class_names) if plan.class_names else ""
    reader = table_reader(records, plan.num_classes, plan.kept_classes, plan.max_regions, names)
    told = _told_names(reader.num_classes, plan) if names else ()
    fields = {
        "name": plan.regions,
        "feature_size": reader.feature_size,
        "num_classes": reader.num_classes,
        "kept_classes": reader.kept_classes or 1,
        "max_regions": plan.max_regions,
    }
    return Source(reader, records, bad, fields, told)


def _told_names(num_classes: int, plan: RegionPlan) -> Sequence[str]:
    """The names of the tables' classes, which may or may not count the background."""
    lines = load_vocabulary(str(plan.class_names)).lines
    if num_classes == len(lines):
        return lines
    if num_classes == len(lines) - 1:
        return lines[1:]
    raise ValueError(
        f"--class-names {plan.class_names} names {len(lines) - 1} classes, the tables have "
        f"{num_classes or 'none'}: expected as many, or one more for the background"
    )


def _model(plan: RegionPlan) -> ModelFolder:
    return model_folder(plan.model, plan.preprocessor, plan.device, plan.precision)
