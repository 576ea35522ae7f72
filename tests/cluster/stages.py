"""Steps the small model at several stages of ZeRO in bf16, on the ranks of torchrun.

``-m tests.cluster.stages CONFIG.toml OUT``: all ranks take the same batches, so that averaging over
them changes no bit, and the contrast between ranks, which is not the same, weighs nothing. Leaves
in OUT a checkpoint of each stage, what plain torch makes of the same steps, and what each stage
said when it was to go on from the checkpoint of another.
"""

import json
import sys
from datetime import timedelta
from itertools import permutations
from pathlib import Path

import torch

from tests.conftest import ROOT
from unimo_ds.config import RunConfig, load_config
from unimo_ds.data.loader import Loader, MicroStep
from unimo_ds.distributed import barrier, rank
from unimo_ds.objectives.pretraining import count_terms, total_loss
from unimo_ds.train.engine import build_engine, set_learning_rate
from unimo_ds.train.group import start_deepspeed
from unimo_ds.train.model import build_model
from unimo_ds.train.optim import build_optimizer, learning_rate

STEPS = 3
FP32_SUMS = {"zero_optimization": {"stage": 1}, "data_types": {"grad_accum_dtype": "fp32"}}


def loss_of(losses, micro: MicroStep, config: RunConfig) -> torch.Tensor:
    return total_loss(losses, count_terms(micro.batch, config.cmcl).tolist(), config.loss)


def steps_of_plain_torch(config: RunConfig, steps: list[MicroStep]) -> dict[str, torch.Tensor]:
    """The float32 masters of a bf16 model after AdamW has stepped them, by parameter name."""
    model = build_model(config).bfloat16().train()
    names = {id(weight): name for name, weight in model.named_parameters()}
    optimizer = build_optimizer(model, config.optim)
    masters = {}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            masters[names[id(weight)]] = torch.nn.Parameter(weight.detach().float())
        group["params"] = [masters[names[id(weight)]] for weight in group["params"]]
    for step, micro in enumerate(steps):
        model.zero_grad()
        loss_of(model(micro.batch.to("cpu", torch.bfloat16)), micro, config).backward()
        for name, weight in model.named_parameters():
            gradient = weight.grad if weight.grad is not None else torch.zeros_like(weight)
            masters[name].grad = gradient.float()
        set_learning_rate(optimizer, learning_rate(step, config.train.steps, config.optim))
        optimizer.step()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(masters[name])
    return {name: master.detach() for name, master in masters.items()}


def main() -> None:
    toml, out = Path(sys.argv[1]), Path(sys.argv[2])
    start_deepspeed(timedelta(minutes=5))
    torch.set_num_threads(1)
    (out / "fp32_sums.json").write_text(json.dumps(FP32_SUMS))
    files = {f"zero{stage}": f"{ROOT}/ds_configs/zero{stage}.json" for stage in (0, 2, 3)}
    files["fp32_sums"] = str(out / "fp32_sums.json")
    shared = ("train.precision=bf16", "loss.cmcl=0", "optim.grad_clip=0", "optim.lr=0.01")
    configs = {
        name: load_config(toml, [*shared, f"train.deepspeed={file}"])
        for name, file in files.items()
    }
    config = configs["zero0"]
    steps = [micro for step in range(STEPS) for micro in Loader(config).step(step)]
    expected = steps_of_plain_torch(config, steps)  # on all ranks: they exchange embeddings
    if rank() == 0:
        torch.save(expected, out / "plain.pt")
    engines = {}
    for name in files:
        engines[name] = engine = build_engine(build_model(config), configs[name])
        engine.train(True)
        for step, micro in enumerate(steps):
            engine.backward(loss_of(engine.forward(micro.batch), micro, config), last=True)
            engine.step(learning_rate(step, config.train.steps, config.optim))
        engine.save(out / name)
        barrier()
    said = {}
    for written, read in permutations(files, 2):
        try:
            engines[read].load(out / written)
            said[f"{written} by {read}"] = ""
        except ValueError as error:
            said[f"{written} by {read}"] = str(error)
    if rank() == 0:
        (out / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
