"""Tiny models on disk, as their libraries save them."""

import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very", "a"]


def word_tokenizer():
    """Of the tokenizers library: words between spaces, with the marks of BERT."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def save_bert(folder, seed=0):
    """A BertModel and its tokenizer, of transformers."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), **marks).save_pretrained(folder)
    return folder


def save_vit(folder):
    """A ViTModel and its image processor, of transformers."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    ViTModel(config).save_pretrained(folder)
    told = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def save_sentences(folder):
    """A SentenceTransformer of a BertModel and the mean of its tokens."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    try:
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ModuleNotFoundError:  # before version 6
        from sentence_transformers.models import Pooling, Transformer

    save_bert(folder / "bert")
    words = Transformer(str(folder / "bert"))
    sentence_transformers.SentenceTransformer(modules=[words, Pooling(8)], device="cpu").save(
        str(folder / "sentences"), create_model_card=False
    )
    return folder / "sentences"


def save_static(folder):
    """A StaticModel of model2vec."""
    model2vec = pytest.importorskip("model2vec")
    vectors = np.random.default_rng(0).normal(size=(len(WORDS), 6)).astype(np.float32)
    vectors[4:6] *= 5  # good and bad say most
    model2vec.StaticModel(vectors, word_tokenizer()).save_pretrained(folder)
    return folder


def save_timm(folder):
    """A ResNet of timm with its configuration."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", pretrained=False, num_classes=5)
    timm.models.save_for_hf(net, folder)
    return folder


def save_open_clip(folder):
    """A CLIP of open_clip, with its configuration."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    net = open_clip.CLIP(**config)
    folder.mkdir()
    told = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    torch.save(net.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


class Pixels(nn.Module):
    """The mean of each quarter of a picture (b, 3, h, w): features (b, 12)."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, images):
        return self.pool(images).flatten(1)


def save_torchscript(folder, side=16):
    """The module as TorchScript, traced on images of a size."""
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(Pixels(), torch.zeros(2, 3, side, side)).save(folder / "net.pt")
    return folder / "net.pt"


def save_onnx(folder, rows="b", n_outputs=1):
    """A file of ONNX: y = the mean of each colour of x (rows, 3, 16, 16), written without torch's exporter."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    folder.mkdir(exist_ok=True)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3, 16, 16])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3, 1, 1])
    graph = helper.make_graph([helper.make_node("GlobalAveragePool", ["x"], ["y"])], "mean", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"
