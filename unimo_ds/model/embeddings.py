"""Words and regions to hidden states, on one packed row.

Legend: T positions · R regions · U vectors that they show · F feature width · D hidden width
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimo_ds.batch import Batch
from unimo_ds.model.configuration import UnimoConfig


class RegionProjection(nn.Linear):
    """F features, or the 5 numbers of a box, to D; initialised so that both come out equally loud.

    Args:
        spread: the deviation of a single input. Scaled by fan-in alone, places came out five times
            quieter than features (0.22 against 1.16), and a trained model's predictions did not
            change when all its boxes were shuffled.
    """

    def __init__(self, inputs: int, outputs: int, spread: float) -> None:
        super().__init__(inputs, outputs)
        self.sigma = 1 / (spread * inputs**0.5)


class FeatureProjection(RegionProjection):
    """The projection of what each region shows; a masked one shows zeros, and so gives the bias.

    Every vector is projected once, however many regions show it. The bias is read in here, where
    ZeRO-3 has gathered it.
    """

    def forward(self, features_UF: Tensor, feature_R: Tensor, masked_R: Tensor) -> Tensor:
        """[R, D]: of vector ``feature_R`` of each region."""
        projected_UD = super().forward(features_UF)
        # The gradient of an embedding is summed in the same order every time, also on a GPU.
        shown_RD = F.embedding(feature_R, projected_UD)
        return torch.where(masked_R[:, None], self.bias.to(shown_RD.dtype), shown_RD)


FEATURE_SPREAD, BOX_SPREAD = 1.0, 0.25
"""Features are normalised; corners lie between 0 and 1, and areas hardly differ."""


class UnimoEmbeddings(nn.Module):
    """dropout(LN(word + position)), and at regions dropout(LN(FC(feature) + FC(box))).

    Regions have neither a position nor a type embedding; [IMG] is a region like the others. A
    masked region keeps its box and loses its feature. Both halves always run, on length zero if
    need be: a weight that one rank gathers under ZeRO-3 and another does not would block both.
    """

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.region_feature = FeatureProjection(
            config.image_feature_size, config.hidden_size, FEATURE_SPREAD
        )
        self.region_box = RegionProjection(5, config.hidden_size, BOX_SPREAD)
        self.region_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [T, D]; at padding positions they are those of the padding word."""
        word_TD = self.word_embeddings(batch.word_ids)
        position_TD = self.position_embeddings(batch.position_ids)
        hidden_TD = self.dropout(self.layer_norm(word_TD + position_TD))
        feature_RD = self.region_feature(batch.features, batch.region_feature, batch.region_masked)
        region_RD = feature_RD + self.region_box(batch.boxes.to(batch.features.dtype))
        region_RD = self.dropout(self.region_layer_norm(region_RD))
        return hidden_TD.index_copy(0, batch.region_at, region_RD)
