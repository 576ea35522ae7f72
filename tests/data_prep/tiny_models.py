"""Real architectures of `transformers`, tiny, with random weights, saved as users have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image

SIDE = 32
_SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
_VIT: dict[str, Any] = {**_SMALL, "image_size": SIDE, "patch_size": 8}
_STAGES: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


def vision_model(kind: str) -> Any:
    """An encoder of pictures of 32 x 32."""
    torch.manual_seed(5)
    configs = {
        "vit": lambda: tf.ViTModel(tf.ViTConfig(**_VIT)),
        "deit": lambda: tf.DeiTModel(tf.DeiTConfig(**_VIT)),
        "clip_vision": lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**_VIT)),
        "clip": lambda: tf.CLIPModel(
            tf.CLIPConfig(
                text_config={**_SMALL, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1},
                vision_config=_VIT,
                projection_dim=8,
            )
        ),
        "siglip": lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**_VIT)),
        "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**_VIT)),
        "registers": lambda: tf.Dinov2WithRegistersModel(
            tf.Dinov2WithRegistersConfig(**_VIT, num_register_tokens=4)
        ),
        "swin": lambda: tf.SwinModel(
            tf.SwinConfig(
                image_size=SIDE,
                patch_size=4,
                embed_dim=8,
                depths=[1, 1],
                num_heads=[2, 2],
                window_size=2,
            )
        ),
        "resnet": lambda: tf.ResNetModel(tf.ResNetConfig(**_STAGES, layer_type="basic")),
        "convnext": lambda: tf.ConvNextModel(
            tf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
        ),
        "mobilenet_v2": lambda: tf.MobileNetV2Model(
            tf.MobileNetV2Config(depth_multiplier=0.25, image_size=SIDE, output_stride=16)
        ),
    }
    return configs[kind]().eval()


def detector_model(kind: str) -> Any:
    """An object detector that knows four classes."""
    torch.manual_seed(5)
    labels: dict[str, Any] = {"id2label": dict(enumerate(("cat", "dog\n", "kite", "cup")))}
    detr: dict[str, Any] = {
        "use_timm_backbone": False,
        "backbone": None,
        "use_pretrained_backbone": False,
        "backbone_config": tf.ResNetConfig(**_STAGES, layer_type="basic", out_features=["stage2"]),
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "num_queries": 30,
        **labels,
    }
    configs = {
        "detr": lambda: tf.DetrForObjectDetection(tf.DetrConfig(**detr)),
        "conditional_detr": lambda: tf.ConditionalDetrForObjectDetection(
            tf.ConditionalDetrConfig(**detr)
        ),
        "yolos": lambda: tf.YolosForObjectDetection(
            tf.YolosConfig(
                **{**_SMALL, "image_size": [48, 64]},
                patch_size=16,
                num_detection_tokens=30,
                **labels,
            )
        ),
        "rt_detr": lambda: tf.RTDetrForObjectDetection(
            tf.RTDetrConfig(
                backbone_config=tf.RTDetrResNetConfig(
                    **{**_STAGES, "hidden_sizes": [8, 8, 16], "depths": [1, 1, 1]},
                    layer_type="basic",
                    out_features=["stage1", "stage2", "stage3"],
                ),
                encoder_hidden_dim=16,
                encoder_in_channels=[8, 8, 16],
                feat_strides=[4, 8, 16],
                encoder_ffn_dim=16,
                encoder_attention_heads=2,
                encode_proj_layers=[2],
                d_model=16,
                decoder_in_channels=[16, 16, 16],
                decoder_ffn_dim=16,
                decoder_attention_heads=2,
                decoder_layers=1,
                num_queries=20,
                **labels,
            )
        ),
    }
    model = configs[kind]().eval()
    with torch.no_grad():  # as initialised, all queries say nearly the same
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    return model


def save(model: Any, folder: Path, **preprocessor: Any) -> Path:
    """The model in ``folder``, beside what a picture of 32 x 32 is prepared by."""
    model.save_pretrained(folder)
    values = {
        "size": {"height": SIDE, "width": SIDE},
        "do_center_crop": False,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.5, 0.25, 0.2],
    }
    text = json.dumps(values | {"image_processor_type": "ViTImageProcessor"} | preprocessor)
    (folder / "preprocessor_config.json").write_text(text)
    return folder


def pixels(path: Path) -> torch.Tensor:
    """float32 [1, 3, 32, 32]: what `save` tells to do with a picture, done by hand."""
    picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    scaled = np.asarray(picture, np.float64) / 255
    values = (scaled - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]
