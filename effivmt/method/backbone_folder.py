"""A backbone's folder and the digests of its weights and configs, found without loading anything."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from effivmt.config import BackboneParams, IngestParams, Params
from effivmt.embedded import find_embedded
from effivmt.errors import BackboneError, ParamsError
from effivmt.hub import absent_files, fetch
from effivmt.method.adapter_manifest import BackboneFacts
from effivmt.method.backbone_checks import (
    COMPONENTS,
    IMAGE_PARTS,
    IMAGE_TEXT_TOKENS,
    SECOND,
    BackboneShape,
    check_configs,
)
from effivmt.method.experts import Expert
from effivmt.store.digests import canonical_json, files_digest, sha256_bytes, sha256_file, visible_files
from effivmt.store.memo import read_memo, write_memo
from effivmt.untrusted import read_json_object, read_safetensors_header

LAYERS = {
    "transformer": "blocks.",
    SECOND: "blocks.",
    "text_encoder": "encoder.block.",
    "vae": None,
    "image_encoder": None,
}
"""The components with weights, and how the names of a layer's weights begin where `num_layers` counts the layers."""
MOST_FILES = 256
"""A component has its weights in at most this many files; Wan 14B's transformer has 12."""
_FOLDERS = (*COMPONENTS, *IMAGE_PARTS, SECOND)
_CONFIGS = ("model_index.json", *(f"{name}/*config.json" for name in _FOLDERS))
_ALL = ("model_index.json", *(f"{name}/*" for name in _FOLDERS))


@dataclass(frozen=True)
class BackboneConfigs:
    """A backbone's folder on this machine with its configs; weights may be missing.

    id: the hub id, or the folder's name; commit: of the hub, None for a folder.
    """

    id: str
    path: Path
    shape: BackboneShape
    commit: str | None


@dataclass(frozen=True)
class BackboneFolder(BackboneConfigs):
    """A backbone on this machine.

    digest: of all components (a model card beside them does not count); transformer_digests: of the weights of each
    transformer alone, by component.
    """

    digest: str
    transformer_digests: Mapping[str, str]

    @property
    def facts(self) -> BackboneFacts:
        """What an adapter and a record say of it."""
        facts: BackboneFacts = {
            "id": self.id,
            "digest": self.digest,
            "transformer": self.transformer_digests["transformer"],
        }
        if SECOND in self.transformer_digests:
            facts |= {"transformer_2": self.transformer_digests[SECOND]}
        return facts if self.commit is None else {**facts, "commit": self.commit}


def find_configs(params: BackboneParams) -> BackboneConfigs:
    """Finds a backbone's folder and checks its configs; of a hub id they alone are fetched.

    Raises BackboneError where there is none, or one of another kind. ParamsError for a revision of a folder.
    """
    folder, commit, name = find_embedded(params.path), None, params.path
    local = os.path.isdir(folder)  # unlike Path.is_dir, it never raises
    if local and params.revision is not None:
        raise ParamsError(
            f"backbone.revision is {params.revision!r:.80} but backbone.path {name} is a folder, which has none; leave "
            "one out"
        )
    if not local:
        folder, commit = fetch("backbone", name, params.revision, _CONFIGS)
    try:
        shape = check_configs(folder)
    except ValueError as error:
        raise BackboneError(f"backbone {folder if local else name} {error}") from error
    return BackboneConfigs(Path(name).name if local else name, folder, shape, commit)


def find_backbone(
    params: BackboneParams, memo: Path | None = None, *, weights: bool = True, configs: BackboneConfigs | None = None
) -> BackboneFolder:
    """Finds a WanPipeline folder or hub id and digests it; `memo` is a file that caches the digests of files.

    Of a hub id it fetches the configs, checks them, and only then fetches the rest; weights False: not the weights,
    whose digests the hub lists. configs: what `find_configs` has found; None: it is called here. Raises BackboneError
    where there is none, or one of another kind, or one whose configs and weights do not belong together: the libraries
    would take minutes or gigabytes to notice. ParamsError for a revision of a folder. DamageError, once, where `memo`
    was damaged.
    """
    configs = configs or find_configs(params)
    folder, shape, name = configs.path, configs.shape, params.path
    local = os.path.isdir(find_embedded(name))
    if not local:
        fetch("backbone", name, configs.commit or params.revision, _ALL, weights=weights)
    absent = {}
    if not local and not weights and not has_weights(folder):
        absent = absent_files(name, configs.commit, folder, _ALL)
    else:
        for component in _with_weights(shape.components):
            _check_model(folder, component, f"backbone {folder if local else name}")
    digests = _file_digests(folder, shape.components, memo) | absent
    files = {
        component: {
            file.partition("/")[2]: digest for file, digest in digests.items() if file.startswith(f"{component}/")
        }
        for component in shape.components
    }
    return BackboneFolder(
        id=configs.id,
        path=folder,
        shape=shape,
        commit=configs.commit,
        digest=_digest(shape, files),
        transformer_digests={
            expert.component: files_digest(
                {file: digest for file, digest in files[expert.component].items() if file.endswith(".safetensors")}
            )
            for expert in shape.experts
        },
    )


def has_weights(folder: Path) -> bool:
    """Whether each component with weights has all of them here."""
    try:
        return all(_tensors(folder / name) for name in _with_weights(check_configs(folder).components))
    except (OSError, ValueError):
        return False


def _with_weights(components: Iterable[str]) -> list[str]:
    return [name for name in components if name in LAYERS]


def _digest(shape: BackboneShape, files: Mapping[str, Mapping[str, str]]) -> str:
    """Digest of the files of all components and, where they are not those of Wan 2.1, of the pipeline's settings."""
    parts: list[object] = [files_digest(files[component]) for component in shape.components]
    if shape.settings:
        parts.append(shape.settings)
    return sha256_bytes(canonical_json(parts))


def check_frame_size(found: BackboneConfigs, ingest: IngestParams) -> None:
    """ParamsError unless frames of this size divide into the backbone's tokens."""
    for side, step in zip(("height", "width"), found.shape.pixel_step, strict=True):
        if (pixels := getattr(ingest, side)) % step:
            nearest = max(step, pixels // step * step)
            raise ParamsError(
                f"ingest.{side} is {pixels}, which is not a multiple of {step} (the autoencoder's scale times the "
                f"transformer's patch, of backbone {found.id}); the nearest is {nearest}"
            )


def check_settings(found: BackboneConfigs, params: Params) -> None:
    """ParamsError where settings do not fit the backbone: the size of frames, or what is for two transformers alone."""
    check_frame_size(found, params.ingest)
    experts = found.shape.experts
    if experts[1:] and params.preview:
        raise ParamsError(
            f"preview is true but backbone {found.id} has two transformers; previews need one: leave --preview out"
        )
    if not experts[1:]:
        for name, value, plain in (
            ("backbone.experts", params.backbone.experts, "all"),
            ("render.guidance_scale_2", params.render.guidance_scale_2, None),
        ):
            if value != plain:
                raise ParamsError(
                    f"{name} is {value} but backbone {found.id} has one transformer; leave it out (it is for two, as "
                    "in Wan 2.2 A14B)"
                )
    if found.shape.image_encoder and (tokens := params.backbone.max_sequence_length) != IMAGE_TEXT_TOKENS:
        raise ParamsError(
            f"backbone.max_sequence_length is {tokens} but backbone {found.id} reads images beside its "
            f"{IMAGE_TEXT_TOKENS} text tokens; set it to {IMAGE_TEXT_TOKENS}"
        )
    for expert in tuned_experts(found, params.backbone):
        if not any(map(expert.takes, params.heads.noise_levels)):
            raise ParamsError(
                f"heads.noise_levels is {list(params.heads.noise_levels)} but the {expert.name} transformer of "
                f"backbone {found.id} is for levels from {expert.noise[0]:g} to {expert.noise[1]:g}; add one of these"
            )


def tuned_experts(found: BackboneConfigs, params: BackboneParams) -> tuple[Expert, ...]:
    """The backbone's transformers that get an adapter."""
    return tuple(it for it in found.shape.experts if params.experts == "all" or it.name in ("", params.experts))


def _check_model(folder: Path, name: str, where: str) -> None:
    """BackboneError unless a component has sound weights, of as many layers as its config says."""
    try:
        config, tensors = read_json_object(folder / name / "config.json"), _tensors(folder / name)
        if (prefix := LAYERS[name]) is not None:
            layers = {tensor.removeprefix(prefix).partition(".")[0] for tensor in tensors if tensor.startswith(prefix)}
            if (said := config.get("num_layers")) != len(layers):
                raise ValueError(f"its config has num_layers {said!r:.20}, its weights have {len(layers)} layers")
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"{where}: its {name} cannot be loaded ({' '.join(str(error).split())[:300]}); expected a WanPipeline "
            "folder: copy it again"
        ) from error


def _tensors(part: Path) -> set[str]:
    """The names of the tensors in a component's safetensors files; ValueError where there are none, or not all."""
    files = sorted(part.glob("*.safetensors"))
    if not 1 <= len(files) <= MOST_FILES:
        raise ValueError(f"it has {len(files)} files of weights (*.safetensors), expected 1 to {MOST_FILES}")
    for index in sorted(part.glob("*.safetensors.index.json")):
        listed = read_json_object(index).get("weight_map")
        names = {str(file) for file in listed.values()} if isinstance(listed, dict) else set()
        if missing := sorted(names - {file.name for file in files}):
            raise ValueError(f"it lacks {missing[0]:.80}, which {index.name} lists")
    tensors: set[str] = set()
    for file in files:
        try:
            tensors |= read_safetensors_header(file).keys()
        except ValueError as error:
            raise ValueError(f"{file} {error}") from error
    return tensors


def _file_digests(folder: Path, components: Iterable[str], memo: Path | None) -> dict[str, str]:
    """SHA-256 of every file of the components, by its name in the folder.

    `memo` remembers them by the file that a name leads to, its size and modification time: in the hub's cache all
    commits lead to the same file where its bytes are the same.
    """
    files = {f"{name}/{file}": path for name in components for file, path in visible_files(folder / name).items()}
    if memo is None:
        return {file: sha256_file(path) for file, path in files.items()}
    signatures = {file: _signature(path) for file, path in files.items()}
    known = read_memo(memo)
    if fresh := {signature: files[file] for file, signature in signatures.items() if signature not in known}:
        known |= {signature: sha256_file(path) for signature, path in fresh.items()}
        write_memo(memo, known)
    return {file: known[signature] for file, signature in signatures.items()}


def _signature(path: Path) -> str:
    status = path.stat()
    return sha256_bytes(canonical_json([str(path.resolve()), status.st_size, status.st_mtime_ns]))
