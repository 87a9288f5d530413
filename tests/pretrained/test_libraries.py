"""The loading code of every library, on tiny models on disk, with no network: features, identities, what is refused.

A library that is not installed is left out. torchvision's wheels have to fit torch, so that timm, torchvision and
open_clip are no requirements of the tests.
"""

import json
import pickle
import socket
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.pipeline import make_pipeline

from sktda import NoisyLabelDetector, PretrainedEncoder, TableEncoder
from sktda.attribution import ComplexityGap
from sktda.pretrained import names
from sktda.pretrained.offline import offline
from tests.in_turn import in_turn
from tests.pretrained import models

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
TEXTS = ["good film", "bad", "a very very good film", ""]


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    """Whoever asks for an address or a connection fails, and the test, too; caches of weights are empty."""
    asked = []

    def refuse(*arguments, **options):
        asked.append(arguments)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    empty = str(tmp_path_factory.mktemp("caches"))
    monkeypatch.setenv("TORCH_HOME", empty)
    if find_spec("huggingface_hub"):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", empty)
    yield
    assert asked == []


# ---- features: each library's own ------------------------------------------------------------------------------------


def of_bert(folder):
    from transformers import AutoModel, AutoTokenizer

    net, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [net(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in TEXTS]
    return TEXTS, torch.stack(rows).detach()


def of_vit(folder):
    from transformers import AutoModel

    pixels = torch.tensor(IMAGES).permute(0, 3, 1, 2) / 255
    return IMAGES, AutoModel.from_pretrained(folder)((pixels - 0.5) / 0.25).pooler_output.detach()


def of_sentences(folder):
    from sentence_transformers import SentenceTransformer

    return TEXTS, SentenceTransformer(str(folder), device="cpu").encode(TEXTS, show_progress_bar=False)


def of_static(folder):
    from model2vec import StaticModel

    return TEXTS, StaticModel.from_pretrained(folder).encode(TEXTS)


def of_timm(folder):
    import timm

    net = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
    return IMAGES, net(torch.stack([transform(Image.fromarray(row)) for row in IMAGES])).detach()


def of_open_clip(folder):
    import open_clip

    net, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return IMAGES, net.eval().encode_image(torch.stack([transform(Image.fromarray(row)) for row in IMAGES])).detach()


def of_torchscript(file):
    return IMAGES, models.Pixels()(torch.tensor(IMAGES).permute(0, 3, 1, 2) / 255)


def of_onnx(file):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return IMAGES, (IMAGES.mean(axis=(1, 2)) / 255 - mean) / std


KINDS = {
    "bert": of_bert,
    "vit": of_vit,
    "sentences": of_sentences,
    "static": of_static,
    "timm": of_timm,
    "open_clip": of_open_clip,
    "torchscript": of_torchscript,
    "onnx": of_onnx,
}


@pytest.fixture
def saved(tmp_path, request):
    """(kind, path) of a model; what a library says of itself while it saves is none of our concern."""
    return request.param, getattr(models, f"save_{request.param}")(tmp_path / request.param)


def every(*kinds):
    return pytest.mark.parametrize("saved", kinds or list(KINDS), indirect=True, ids=str)


SAYS_NOTHING = pytest.mark.filterwarnings("ignore:net.onnx does not say how images are prepared")


@SAYS_NOTHING
@every()
def test_features_are_those_of_the_library(saved, monkeypatch):
    kind, path = saved
    rows, expected = KINDS[kind](path)
    found = PretrainedEncoder(path, batch_size=3).fit_transform(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


@SAYS_NOTHING
@every()
def test_other_weights_are_another_model_and_the_same_are_the_same(saved):
    kind, path = saved
    keys = [PretrainedEncoder(path)._loaded().key for _ in range(2)]
    assert keys[0] == keys[1]
    if kind == "onnx":
        path.write_bytes(path.read_bytes().replace(b"mean", b"mine"))  # the name of the graph
    elif kind == "torchscript":
        models.save_torchscript(path.parent, side=8)
    else:
        changed = 0
        for file in sorted(path.rglob("*.safetensors")) + sorted(path.rglob("*.bin")):
            changed += change_weights(file)
        assert changed
    assert PretrainedEncoder(path)._loaded().key != keys[0]


def change_weights(file):
    """Add to one number in a file of weights."""
    from safetensors.torch import load_file, save_file

    is_safe = file.suffix == ".safetensors"
    state = load_file(file) if is_safe else torch.load(file, weights_only=True)
    name = next(name for name, tensor in state.items() if tensor.is_floating_point() and tensor.ndim)
    state[name] = state[name].clone()
    state[name].view(-1)[0] += 0.25
    save_file(state, file, {"format": "pt"}) if is_safe else torch.save(state, file)
    return 1


@SAYS_NOTHING
@every()
def test_a_damaged_file_is_named_in_one_error(saved):
    _, path = saved
    files = [path] if path.is_file() else [*path.rglob("*.safetensors"), *path.rglob("*.bin")]
    for file in files:
        file.write_bytes(file.read_bytes()[:60] + bytes(100))
    with pytest.raises((ValueError, OSError), match=r"cannot be loaded|is a pickle") as caught:
        PretrainedEncoder(path).fit(IMAGES)
    assert str(path) in str(caught.value)


@every("bert")
def test_settings_beside_the_weights_count(saved):
    _, path = saved
    before = PretrainedEncoder(path)._loaded().key
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 3}))
    assert PretrainedEncoder(path)._loaded().key != before


@every("bert")
def test_a_net_that_its_weights_do_not_fill_is_refused(saved):
    from safetensors.torch import load_file, save_file

    _, path = saved
    state = load_file(path / "model.safetensors")
    save_file({k: v for k, v in state.items() if "pooler" not in k}, path / "model.safetensors", {"format": "pt"})
    PretrainedEncoder(path).fit(TEXTS)  # which no features need
    save_file({k: v for k, v in state.items() if "layer.0" not in k}, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fill the model: 16 of its tensors, such as .* would be random"):
        PretrainedEncoder(path).fit(TEXTS)


@every("static")
def test_flips_are_found_by_learned_features_of_texts(saved):
    _, path = saved
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    texts = [" ".join([("bad", "good")[label], *rng.choice(["a", "film", "very"], 2)]) for label in y]
    flipped = rng.choice(80, 8, replace=False)
    y[flipped] = 1 - y[flipped]
    table = TableEncoder(kinds={"0": "text"}, text=PretrainedEncoder(path))
    for encoder, X in ((PretrainedEncoder(path), texts), (table, {"0": texts})):
        if isinstance(X, dict):
            import pandas as pd

            X = pd.DataFrame(X)
        detector = make_pipeline(encoder, NoisyLabelDetector(ComplexityGap(scale="standard"))).fit(X, y)[-1]
        assert set(np.flatnonzero(detector.labels_ == -1)) == set(flipped)


@pytest.mark.parametrize("rows", ["b", 1, 2])
def test_onnx_files_of_a_fixed_number_of_rows(rows, tmp_path):
    path = models.save_onnx(tmp_path, rows)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    found = PretrainedEncoder(tmp_path).fit_transform(IMAGES)
    np.testing.assert_allclose(found, IMAGES.mean(axis=(1, 2)) / 255, atol=1e-6)
    assert PretrainedEncoder(path)._loaded().side == 16


def test_weights_of_torchvision_are_taken_from_torchs_folder(monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    net = torchvision.models.squeezenet1_1(weights=None).eval()
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(net.state_dict(), folder / weights.url.rpartition("/")[2])
    found = PretrainedEncoder("torchvision:squeezenet1_1").fit_transform(IMAGES)
    prepared = weights.transforms()(torch.tensor(IMAGES).permute(0, 3, 1, 2))
    np.testing.assert_allclose(found, net.features(prepared).mean(dim=(2, 3)).detach(), atol=1e-5)


@in_turn("name", ["resnet18", "vgg11", "mobilenet_v3_small", "vit_b_16", "densenet121", "swin_t"])
def test_the_head_of_a_classifier_is_taken_out(name):
    torchvision = pytest.importorskip("torchvision")
    from sktda.pretrained.libraries.torchvision_nets import without_head

    with torch.device("meta"):
        net = torchvision.models.get_model(name, weights=None)
        linear = [part for part in net.modules() if isinstance(part, torch.nn.Linear)][-1]
        assert without_head(net.eval())(torch.zeros(1, 3, 224, 224)).shape == (1, linear.in_features)


# ---- what is not here ------------------------------------------------------------------------------------------------

MISSING = {
    "timm:resnet18": "timm.create_model('resnet18', pretrained=True)",
    "torchvision:resnet18": "torchvision.models.get_model('resnet18', weights='DEFAULT')",
    "open_clip:ViT-B-32/openai": "open_clip.create_model('ViT-B-32', 'openai')",
    "sentence-transformers:all-MiniLM-L6-v2": "SentenceTransformer('all-MiniLM-L6-v2')",
    "model2vec:minishlab/potion-base-8M": "snapshot_download('minishlab/potion-base-8M')",
    "transformers:google-bert/bert-base-uncased": "snapshot_download('google-bert/bert-base-uncased')",
}


@in_turn("name", MISSING)
def test_missing_weights_are_not_fetched_and_the_error_says_how(name):
    pytest.importorskip(names.LIBRARIES[name.partition(":")[0]].module)
    with pytest.raises(FileNotFoundError, match="not on this machine, and nothing is downloaded here") as caught:
        PretrainedEncoder(name).fit(IMAGES)
    assert MISSING[name] in str(caught.value)


def test_the_hub_is_asked_again_afterwards():
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(KeyError), offline():
        raise KeyError(constants.HF_HUB_OFFLINE)
    with offline():
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet19", "timm has no model 'resnet19'; did you mean resnet1"),
        ("timm:resnet18.nothing", "timm has no weights for 'resnet18.nothing', only for resnet18"),
        ("torchvision:resnet19", "torchvision has no model 'resnet19'; did you mean resnet1"),
        ("open_clip:ViT-B-3/openai", "open_clip has no model 'ViT-B-3'; did you mean ViT-B-32"),
        ("open_clip:ViT-B-32", "open_clip:ViT-B-32/WEIGHTS with one of openai"),
    ],
)
def test_names_that_a_library_does_not_know(name, message):
    pytest.importorskip(name.partition(":")[0])
    with pytest.raises(ValueError, match=message):
        PretrainedEncoder(name).fit(IMAGES)


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))])
def test_pickles_are_not_read(tmp_path, save):
    save(Touch(tmp_path / "made"), tmp_path / "net.pt")
    with pytest.raises(ValueError, match="is a pickle, which could run any code when it is loaded"):
        PretrainedEncoder(tmp_path / "net.pt").fit(IMAGES)
    assert not (tmp_path / "made").exists()


# ---- names -----------------------------------------------------------------------------------------------------------


@in_turn(
    ("text", "message"),
    [
        ("resnet18", "did you mean timm:resnet18"),
        ("Timm:resnet18", "did you mean timm:resnet18"),
        ("torchvison:resnet18", "did you mean torchvision:resnet18"),
        ("open-clip:ViT-B-32/openai", "did you mean open_clip:ViT-B-32/openai"),
        ("sentence-transformer:x", "did you mean sentence-transformers:x"),
        ("intfloat/e5-small-v2", "did you mean sentence-transformers:intfloat/e5-small-v2"),
        ("keras:resnet", "LIBRARY:NAME with one of timm, "),
    ],
)
def test_names_that_mean_nothing_are_answered_with_what_may_be_meant(text, message):
    with pytest.raises(ValueError, match=message):
        names.read_name(text)


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(names, "find_spec", lambda module: None)
    with pytest.raises(ImportError, match="timm:resnet18 needs timm, which is not installed; install it with: pip"):
        names.read_name("timm:resnet18")
    with pytest.raises(ValueError, match="none of these libraries is installed here"):
        names.read_name("x")


@pytest.mark.parametrize("text", ["transformers:./nowhere", "sentence-transformers:/no/where"])
def test_a_path_that_is_not_there_is_no_name(text):
    with pytest.raises(FileNotFoundError, match="does not exist; check the path"):
        names.read_name(text)


@pytest.mark.parametrize(
    ("files", "library"),
    [
        ({"modules.json": "[]", "config.json": '{"model_type": "bert"}'}, "sentence-transformers"),
        ({"open_clip_config.json": "{}", "config.json": '{"model_type": "clip"}'}, "open_clip"),
        ({"config.json": '{"model_type": "model2vec"}'}, "model2vec"),
        ({"config.json": '{"architecture": "resnet18"}'}, "timm"),
        ({"config.json": '{"model_type": "bert"}', "model.onnx": ""}, "onnx"),
        ({"config.json": '{"model_type": "bert"}', "model.safetensors": "", "model.onnx": ""}, "transformers"),
        ({"net.onnx": ""}, "onnx"),
        ({"config.json": "{"}, None),
        ({}, None),
    ],
)
def test_a_folder_says_whose_model_it_holds(tmp_path, files, library, monkeypatch):
    monkeypatch.setattr(names, "find_spec", lambda module: True)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    if library is None:
        with pytest.raises(ValueError, match="is a folder without a model that is known here"):
            names.read_name(tmp_path)
    else:
        assert names.read_name(tmp_path).library == library


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.safetensors", "holds weights without their net"),
        ("net.pth", "is a pickle"),
        ("net.txt", "is no model that is known here"),
    ],
)
def test_files_that_are_no_models(tmp_path, name, message):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=message):
        names.read_name(tmp_path / name)
