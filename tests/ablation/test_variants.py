"""A variant changes the stated part of a configuration and nothing else."""

from dataclasses import asdict

import pytest

from unimo_ds.ablation.run import plan
from unimo_ds.ablation.variants import VARIANTS, variant
from unimo_ds.config import RunConfig, config_from_dict
from unimo_ds.config_rules import num_negatives

CONTRAST = {
    "captions": 2,
    "retrieved_texts": 3,
    "retrieved_images": 4,
    "joint_positives": 1,
    "rewritten_positives": 2,
    "word_negatives": 5,
    "phrase_negatives": 6,
    "sentence_negatives": 7,
    "other_negatives": 1,
}
CHANGES = {
    "full": {},
    "no-word-rewriting": {"cmcl.word_negatives": 0, "cmcl.other_negatives": 6},
    "no-phrase-rewriting": {"cmcl.phrase_negatives": 0, "cmcl.other_negatives": 7},
    "no-sentence-rewriting": {
        "cmcl.sentence_negatives": 0,
        "cmcl.other_negatives": 8,
        "cmcl.rewritten_positives": 0,
        "cmcl.joint_positives": 3,
    },
    "no-rewriting": {
        "cmcl.word_negatives": 0,
        "cmcl.phrase_negatives": 0,
        "cmcl.sentence_negatives": 0,
        "cmcl.other_negatives": 19,
        "cmcl.rewritten_positives": 0,
        "cmcl.joint_positives": 3,
    },
    "rewriting-off": {
        "cmcl.word_negatives": 0,
        "cmcl.phrase_negatives": 0,
        "cmcl.sentence_negatives": 0,
        "cmcl.rewritten_positives": 0,
    },
    "no-retrieved-images": {"cmcl.retrieved_images": 0},
    "no-retrieved-texts": {"cmcl.retrieved_texts": 0},
    "no-retrieval": {"cmcl.retrieved_images": 0, "cmcl.retrieved_texts": 0},
    "no-in-batch-negatives": {"cmcl.in_batch_negatives": False},
    "no-cmcl": {f"cmcl.{name}": 0 for name in CONTRAST} | {"loss.cmcl": 0.0},
    "no-unpaired-texts": {
        "data.texts": [],
        "data.text_weight": 0,
        "cmcl.retrieved_texts": 0,
        "batch.samples": 30,
    },
    "no-unpaired-images": {
        "data.images": [],
        "data.image_weight": 0,
        "cmcl.retrieved_images": 0,
        "batch.samples": 30,
    },
    "pairs-only": {
        "data.texts": [],
        "data.images": [],
        "data.text_weight": 0,
        "data.image_weight": 0,
        "cmcl.retrieved_texts": 0,
        "cmcl.retrieved_images": 0,
        "batch.samples": 24,
    },
}


@pytest.fixture
def base() -> RunConfig:
    data = {"tokenizer": "t", "texts": ["a"], "images": ["b"], "pairs": ["c"], "pair_weight": 4}
    data |= {"max_tokens": 20, "max_regions": 4}
    batch = {"samples": 36}
    optim = {"warmup_steps": 1}
    return config_from_dict({"data": data, "batch": batch, "cmcl": CONTRAST, "optim": optim})


def test_every_variant_is_described_here():
    assert [one.name for one in VARIANTS] == list(CHANGES)
    assert len({one.label for one in VARIANTS}) == len(VARIANTS)


@pytest.mark.parametrize("name", CHANGES)
def test_a_variant_changes_this_and_nothing_else(base, name):
    before, after = asdict(base), asdict(variant(name).applied(base))
    changed = {
        f"{section}.{key}": after[section][key]
        for section, values in before.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if value != after[section][key]
    }
    assert changed == CHANGES[name]


@pytest.mark.parametrize("name", [name for name in CHANGES if name.endswith("rewriting")])
def test_without_rewriting_as_many_pairs_are_scored(base, name):
    def scored(config: RunConfig) -> int:
        cmcl = config.cmcl
        return num_negatives(cmcl) + cmcl.joint_positives + cmcl.rewritten_positives

    assert scored(variant(name).applied(base)) == scored(base)


@pytest.mark.parametrize("name", ["no-unpaired-texts", "no-unpaired-images", "pairs-only"])
def test_without_unpaired_data_a_step_has_as_many_pairs(base, name):
    def pairs(config: RunConfig) -> float:
        data = config.data
        weights = data.text_weight + data.image_weight + data.pair_weight
        return config.batch.samples * data.pair_weight / weights

    assert pairs(variant(name).applied(base)) == pairs(base) == 24


def test_a_step_that_cannot_have_as_many_pairs_is_refused(base):
    odd = config_from_dict(asdict(base) | {"batch": {"samples": 32}})
    with pytest.raises(ValueError, match=r"set batch\.samples to a multiple of 6"):
        variant("pairs-only").applied(odd)


def test_an_unknown_variant_is_told_the_known_ones():
    with pytest.raises(ValueError, match="no variant 'no-dice'; there are full, no-word-rewriting"):
        variant("no-dice")


def test_a_run_trains_on_its_size_in_a_folder_of_its_own_with_plain_torch(base):
    planned = plan(base, {"scarce": "few", "plenty": "many"}, "no-cmcl", "scarce", 3)
    config = planned.config
    assert (config.data.pairs, config.seed, config.train.deepspeed) == (["few"], 3, "")
    assert config.run_folder == base.run_folder.parent / "scarce" / "no-cmcl" / "seed-3"
    assert config.train.steps == base.train.steps
