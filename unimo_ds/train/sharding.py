"""How the state in a checkpoint is laid out: by plain torch, or by DeepSpeed at a stage of ZeRO."""

from pathlib import Path

PLAIN_STATES = "plain_states.pt"
MODEL_STATES = "mp_rank_00_model_states.pt"
"""Where DeepSpeed keeps the whole model below stage 3, and at stage 0 the optimizer too."""
OPTIMIZER_STATES = "*_optim_states.pt"
"""One file a rank, from stage 1 on."""

PLAIN = "plain torch"
REMEDIES = {
    PLAIN: "train.deepspeed=",
    "ZeRO 0": "train.deepspeed=ds_configs/zero0.json",
    "ZeRO 1 or 2": "train.deepspeed=ds_configs/zero1.json",
    "ZeRO 3": "train.deepspeed=ds_configs/zero3.json",
}
"""What to set to read each layout. Stages 1 and 2 cut the state alike and read each other's."""


def layout_of(checkpoint: Path) -> str:
    """The layout that the files of a checkpoint have, a key of `REMEDIES`."""
    if (checkpoint / PLAIN_STATES).is_file():
        return PLAIN
    if not any(checkpoint.glob(OPTIMIZER_STATES)):
        return "ZeRO 0"
    return "ZeRO 1 or 2" if (checkpoint / MODEL_STATES).is_file() else "ZeRO 3"


def layout_of_stage(stage: int) -> str:
    """The layout that DeepSpeed writes at a stage of ZeRO."""
    return "ZeRO 1 or 2" if stage in (1, 2) else f"ZeRO {stage}"


def check_layout(checkpoint: Path, layout: str) -> None:
    """Refuses a checkpoint that this run's engine cannot read.

    Raises:
        ValueError: it has another layout.
    """
    found = layout_of(checkpoint)
    if found != layout:
        raise ValueError(
            f"{checkpoint} was written with {found}, this run has {layout}: set {REMEDIES[found]}, "
            "or train.deepspeed to another JSON of that stage"
        )
