"""What a user means by the name of a pretrained model: a library and its name for the model, or a path."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Library(NamedTuple):
    """A library that loads models. fetch: Python that brings the weights of {name} to where the library finds them."""

    module: str  # to import
    package: str  # to install
    file: str  # of sktda/pretrained/libraries
    fetch: str


LIBRARIES = {
    "timm": Library("timm", "timm", "timm_nets", "import timm; timm.create_model('{name}', pretrained=True)"),
    "torchvision": Library(
        "torchvision",
        "torchvision",
        "torchvision_nets",
        "import torchvision; torchvision.models.get_model('{name}', weights='DEFAULT')",
    ),
    "open_clip": Library(
        "open_clip",
        "open_clip_torch",
        "open_clip_nets",
        "import open_clip; open_clip.create_model('{first}', '{rest}'); open_clip.get_tokenizer('{first}')",
    ),
    "sentence-transformers": Library(
        "sentence_transformers",
        "sentence-transformers",
        "sentences",
        "from sentence_transformers import SentenceTransformer; SentenceTransformer('{name}')",
    ),
    "model2vec": Library(
        "model2vec",
        "model2vec",
        "static_words",
        "import huggingface_hub; huggingface_hub.snapshot_download('{name}')",
    ),
    "transformers": Library(
        "transformers",
        "transformers",
        "transformers_nets",
        "import huggingface_hub; huggingface_hub.snapshot_download('{name}')",
    ),
    "onnx": Library("onnxruntime", "onnxruntime", "onnx_nets", ""),
    "torchscript": Library("torch", "torch", "modules", ""),
}
NAMED = [name for name, library in LIBRARIES.items() if library.fetch]


@dataclass(frozen=True)
class Model:
    """text: as the user wrote it; library: a key of LIBRARIES; name: the library's, or a path that exists."""

    text: str
    library: str
    name: str | Path

    def missing(self, why: object = "") -> FileNotFoundError:
        """The error where the weights are not on this machine: it says how to get them, as nothing here does that."""
        name = str(self.name)
        if isinstance(self.name, Path):
            return FileNotFoundError(f"{name} cannot be loaded as a model of {self.library}{f': {why}' if why else ''}")
        first, _, rest = name.partition("/")
        code = LIBRARIES[self.library].fetch.format(name=name, first=first, rest=rest)
        return FileNotFoundError(
            f"the weights of {self.text} are not on this machine, and nothing is downloaded here; fetch them once, "
            f'with: python -c "{code}"'
        )


def read_name(text: str | Path) -> Model:
    """The model that is meant: an existing path, or LIBRARY:NAME.

    Loads nothing. Raises ValueError for what is neither, FileNotFoundError for a path that is not there, and
    ImportError where the library is not installed.
    """
    text = str(text)
    library, colon, name = text.partition(":")
    if Path(text).exists():
        model = Model(text, _library_of(Path(text)), Path(text))
    elif colon and name and library in NAMED:
        path = Path(name)
        model = Model(text, library, path if path.exists() else name)
        if not path.exists() and (name.startswith((".", "/", "~")) or path.suffix in {".onnx", ".pt", ".pth"}):
            raise FileNotFoundError(f"{name} does not exist; check the path of {text}")
    else:
        known = ", ".join(NAMED)
        raise ValueError(
            f"{text!r} names no model: it is neither a path that exists nor LIBRARY:NAME with one of {known}"
            f"{_guess(text)}; {_installed()}"
        )
    check_installed(model.library, text)
    return model


def check_installed(library: str, text: str) -> None:
    """Raise ImportError, with what to install, where the library of a model cannot be imported."""
    needed = LIBRARIES[library]
    if find_spec(needed.module) is None:
        raise ImportError(
            f"{text} needs {needed.package}, which is not installed; install it with: pip install {needed.package}",
            name=needed.module,
        )


def close_to(name: str, known: list[str]) -> str:
    """What may have been meant by a name that a library does not know, as the end of a sentence."""
    close = get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _installed() -> str:
    found = [name for name in NAMED if find_spec(LIBRARIES[name].module)]
    return f"installed here: {', '.join(found)}" if found else "none of these libraries is installed here"


def _guess(text: str) -> str:
    """What the user may have meant."""
    library, colon, name = text.partition(":")
    plain = library.lower().replace("_", "-")
    known = {each.replace("_", "-"): each for each in NAMED} | {"sbert": "sentence-transformers", "hf": "transformers"}
    close = get_close_matches(plain, known, n=1, cutoff=0.6)
    if colon and close:
        return f"; did you mean {known[close[0]]}:{name}?"
    if not colon and "/" in text and not text.startswith(("/", ".", "~")) and not Path(text).suffix:
        return f"; if it is a model of the Hugging Face hub, did you mean sentence-transformers:{text}?"
    return "" if colon or "/" in text else f"; did you mean timm:{text}?"


def _library_of(path: Path) -> str:
    """Which library reads what is at a path. Raises ValueError for what none can read, or what would run code."""
    if path.is_file():
        return _library_of_file(path)
    if (path / "modules.json").is_file():
        return "sentence-transformers"
    if (path / "open_clip_config.json").is_file():
        return "open_clip"
    config = _json(path / "config.json")
    if config.get("model_type") == "model2vec" or {"apply_pca", "apply_zipf"} & config.keys():
        return "model2vec"
    if "architecture" in config:
        return "timm"
    if any(path.glob("*.onnx")) and not any(path.glob("*.safetensors")):
        return "onnx"
    if "model_type" in config:
        return "transformers"
    raise ValueError(
        f"{path} is a folder without a model that is known here: one saved by sentence-transformers, model2vec, "
        "transformers, timm (timm.models.save_for_hf) or open_clip, or with a .onnx file, is needed"
    )


def _library_of_file(path: Path) -> str:
    if path.suffix == ".onnx":
        return "onnx"
    if path.suffix in {".safetensors", ".ckpt", ".bin", ".h5", ".npz"}:
        raise ValueError(
            f"{path} holds weights without their net; name a folder with both, as timm.models.save_for_hf and "
            "save_pretrained of the other libraries write it, or give the net with these weights to PretrainedEncoder"
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                return "torchscript"
    if path.suffix in {".pt", ".pth"}:
        raise ValueError(
            f"{path} is a pickle, which could run any code when it is loaded; save the net as ONNX or TorchScript, or "
            "load it yourself with torch.load and give the net to PretrainedEncoder"
        )
    raise ValueError(f"{path} is no model that is known here; a folder, or a file .onnx or TorchScript .pt, is needed")


def _json(path: Path) -> dict:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
