"""Which clips of a catalog a run takes."""

from pathlib import Path

from effivmt.catalog import Catalog
from effivmt.pipeline.catalog_run import failed_before
from effivmt.pipeline.stages.text_embedding import check_texts, clip_fault
from effivmt.pipeline.workspace import Workspace


def select_clips(catalog: Catalog, only: tuple[str, ...] = (), retry_in: Path | None = None) -> Catalog:
    """All clips; or those of `only` and those that failed in the last run into the folder `retry_in`, if given.

    That may be none. Raises CatalogError for a clip that is not there, EffiVMTError where no run has ended.
    """
    if retry_in is None:
        return catalog.only(only)
    known = {clip.clip for clip in catalog.clips}
    names = (*only, *(name for name in failed_before(retry_in) if name in known))
    return catalog.only(names) if names else Catalog(catalog.path, ())


def set_long_texts_aside(work: Workspace, catalog: Catalog) -> Catalog:
    """The catalog where clips have a fault of which the backbone would not read the whole caption or a whole prompt.

    CatalogError where no clip is left; ParamsError where it would not read the whole negative prompt.
    """
    check_texts(work, ())
    found = {clip.clip: clip_fault(work, clip) for clip in catalog.clips}
    return catalog.without({name: fault for name, fault in found.items() if fault is not None})
