"""EffiVMT: motion transfer for video diffusion transformers (arXiv 2506.05207), as a library.

The names of `__all__` are the public interface; each is imported when it is first used, so that `import effivmt` takes
no torch. Shape letters used in every docstring of this package:

B batch, F latent frames, T pixel frames, H W height and width, S tokens, N heads, D head width, C channels,
L layers, R LoRA rank.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from effivmt.versions import __version__

if TYPE_CHECKING:
    from effivmt.catalog import Catalog, Clip, load_catalog
    from effivmt.config import Params
    from effivmt.errors import AdapterError, BackboneError, EffiVMTError, ParamsError, StoreError, VideoError
    from effivmt.method.adapter import Adapter, load_adapter
    from effivmt.method.adapter_manifest import read_facts as read_manifest
    from effivmt.params_file import load_params
    from effivmt.pipeline.api import evaluate_videos as evaluate
    from effivmt.pipeline.api import transfer
    from effivmt.pipeline.callbacks import Callback
    from effivmt.pipeline.catalog_run import run_catalog
    from effivmt.pipeline.outcomes import ClipOutcome, RunSummary, StageRun
    from effivmt.pipeline.outputs import Outputs
    from effivmt.pipeline.stages import RenderedVideo, render
    from effivmt.pipeline.transfer import TransferResult
    from effivmt.pipeline.workspace import Workspace, open_workspace
    from effivmt.store import Store

_MODULES = {
    "Adapter": "method.adapter",
    "AdapterError": "errors",
    "BackboneError": "errors",
    "Callback": "pipeline.callbacks",
    "Catalog": "catalog",
    "Clip": "catalog",
    "ClipOutcome": "pipeline.outcomes",
    "EffiVMTError": "errors",
    "Outputs": "pipeline.outputs",
    "Params": "config",
    "ParamsError": "errors",
    "RenderedVideo": "pipeline.stages",
    "RunSummary": "pipeline.outcomes",
    "StageRun": "pipeline.outcomes",
    "Store": "store",
    "StoreError": "errors",
    "TransferResult": "pipeline.transfer",
    "VideoError": "errors",
    "Workspace": "pipeline.workspace",
    "evaluate": "pipeline.api:evaluate_videos",
    "load_adapter": "method.adapter",
    "load_catalog": "catalog",
    "load_params": "params_file",
    "open_workspace": "pipeline.workspace",
    "read_manifest": "method.adapter_manifest:read_facts",
    "render": "pipeline.stages",
    "run_catalog": "pipeline.catalog_run",
    "transfer": "pipeline.api",
}

__all__ = [
    "Adapter",
    "AdapterError",
    "BackboneError",
    "Callback",
    "Catalog",
    "Clip",
    "ClipOutcome",
    "EffiVMTError",
    "Outputs",
    "Params",
    "ParamsError",
    "RenderedVideo",
    "RunSummary",
    "StageRun",
    "Store",
    "StoreError",
    "TransferResult",
    "VideoError",
    "Workspace",
    "__version__",
    "evaluate",
    "load_adapter",
    "load_catalog",
    "load_params",
    "open_workspace",
    "read_manifest",
    "render",
    "run_catalog",
    "transfer",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'effivmt' has no attribute {name!r}")
    module, _, attribute = _MODULES[name].partition(":")
    value = getattr(import_module(f"effivmt.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
