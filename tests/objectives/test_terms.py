"""Language and vision objectives: the formulas, and sums that leave out what was not asked."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from tests.objectives.rows import empty_row
from unimo_ds.batch import Batch
from unimo_ds.config import LossConfig
from unimo_ds.data.loader import Loader
from unimo_ds.objectives.language import labelled_positions, language_terms
from unimo_ds.objectives.pretraining import OBJECTIVES, count_terms, terms, total_loss
from unimo_ds.objectives.vision import class_term, feature_term, masked_regions
from unimo_ds.train.model import build_model

CLASSES = "class_ids", "class_probs"


def test_language_terms_split_by_order():
    labels = torch.tensor([-100, 3, 5, -100, 7])
    batch = empty_row()._replace(labels=labels, order=torch.tensor([0, 0, 0, 1, 2]).int())
    positions = labelled_positions(batch)
    assert positions.tolist() == [1, 2, 4]
    logits = torch.randn(3, 9)
    logits[0, 3] = 50.0
    mlm, seq2seq = language_terms(logits, batch, positions)
    loss = F.cross_entropy(logits, labels[positions], reduction="none")
    assert float(mlm.loss) == pytest.approx(float(loss[:2].sum()), rel=1e-6)
    assert float(seq2seq.loss) == pytest.approx(float(loss[2]), rel=1e-6)
    assert (int(mlm.count), int(seq2seq.count)) == (2, 1)
    assert int(mlm.correct) == 1 + int(logits[1].argmax() == 5)


def regions(kept_probs):
    n, k = kept_probs.shape
    return empty_row()._replace(
        features=torch.randn(n, 4),
        class_ids=torch.arange(k).repeat(n, 1) + 2,
        class_probs=kept_probs,
        region_feature=torch.arange(n),
        region_masked=torch.ones(n, dtype=torch.bool),
    )


def test_soft_labels_spread_what_was_not_kept_evenly():
    kept = torch.tensor([[0.5, 0.2, 0.1], [1.0, 0.0, 0.0]])
    batch = regions(kept)
    logits = torch.randn(2, 11, dtype=torch.float64)
    whole = torch.zeros(2, 11, dtype=torch.float64)
    whole += ((1 - kept.sum(1)) / 8)[:, None]
    whole[:, 2:5] = kept.double()
    expected = -(whole * torch.log_softmax(logits, dim=1)).sum()
    term = class_term(logits, batch, masked_regions(batch))
    assert float(term.loss) == pytest.approx(float(expected), rel=1e-5)
    assert int(term.count) == 2
    assert int(term.correct) == int((logits.argmax(1) == 2).sum())


def test_features_are_regressed_by_mean_square():
    batch = regions(torch.ones(3, 1))
    predicted = torch.randn(3, 4)
    term = feature_term(predicted, batch, masked_regions(batch))
    expected = 3 * float(F.mse_loss(predicted, batch.features))
    assert float(term.loss) == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def row(small_config):
    return Loader(small_config).step(0)[0].batch.to("cpu")


@pytest.mark.parametrize("score", ["cosine", "match"])
def test_forward_reports_the_counts_that_the_data_announced(small_config, row, score):
    model = dataclasses.replace(small_config.model, score=score)
    losses = build_model(dataclasses.replace(small_config, model=model))(row)
    counts = count_terms(row, small_config.cmcl)
    assert [float(term.count) for term in terms(losses).values()] == counts.tolist()
    assert (counts > 0).all()


@pytest.mark.parametrize("score", ["cosine", "match"])
def test_every_parameter_gets_a_gradient_even_from_an_empty_row(small_config, row, score):
    sizes = dataclasses.replace(small_config.model, score=score)
    model = build_model(dataclasses.replace(small_config, model=sizes))
    empty = empty_row(small_config.model.image_feature_size)
    for batch in (row, empty):
        model.zero_grad()
        losses = model(batch)
        total_loss(losses, count_terms(batch, small_config.cmcl).tolist(), LossConfig()).backward()
        without = [name for name, p in model.named_parameters() if p.grad is None]
        assert without == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("chosen", OBJECTIVES)
def test_weights_switch_objectives(small_config, row, chosen):
    losses = build_model(small_config)(row)
    only = LossConfig(**{name: float(name == chosen) for name in OBJECTIVES})
    term = terms(losses)[chosen]
    counts = count_terms(row, small_config.cmcl).tolist()
    assert float(total_loss(losses, counts, only)) == pytest.approx(
        float(term.loss / term.count), rel=1e-5
    )


def test_masked_regions_leak_nowhere(small_config, row):
    """What the model predicts does not depend on the features that it must not see."""
    model = build_model(small_config).eval()
    hidden = model.unimo.encode(row)
    apart = one_vector_each(row)  # other segments of the pair show what is masked in one
    assert torch.allclose(hidden, model.unimo.encode(apart), atol=1e-5)
    hidden = model.unimo.encode(apart)
    other = apart.features.clone()
    other[apart.region_masked] += 3.0
    assert torch.equal(hidden, model.unimo.encode(apart._replace(features=other)))


def one_vector_each(row: Batch) -> Batch:
    """The same row with a copy of its vector for each region."""
    copied = {n: getattr(row, n)[row.region_feature] for n in ("features", *CLASSES)}
    return row._replace(**copied, region_feature=torch.arange(len(row.region_feature)))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_sharing_vectors_changes_neither_losses_nor_gradients(small_config, row, dropout):
    sizes = dataclasses.replace(small_config.model, hidden_dropout_prob=dropout)
    model = build_model(dataclasses.replace(small_config, model=sizes))
    counts = count_terms(row, small_config.cmcl).tolist()
    results = []
    for batch in (row, one_vector_each(row)):
        torch.manual_seed(5)
        model.zero_grad()
        losses = model(batch)
        total_loss(losses, counts, LossConfig()).backward()
        values = torch.stack([term.loss.detach() for term in terms(losses).values()])
        results.append((values, torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert len(row.features) < 0.3 * len(row.region_at)
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)
