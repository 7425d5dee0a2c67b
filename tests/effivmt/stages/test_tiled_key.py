"""Frames that are decoded in tiles differ at the seams, so the keys of what is measured on them name the tiles."""

from effivmt.method.memory_choices import MemoryChoices
from effivmt.pipeline.stages.ingestion import ingest_key
from effivmt.pipeline.workspace import LoadedBackbone, Workspace
from effivmt.store.store import Store


def test_tiled_decoding_has_an_ingest_of_its_own(tmp_path, params, clip) -> None:
    store = Store(tmp_path / "store")
    whole, tiled, checkpointed = (
        ingest_key(Workspace(store, params, loaded=LoadedBackbone(memory=choices)), clip)
        for choices in (
            MemoryChoices(),
            MemoryChoices(tiled_decoding=True),
            MemoryChoices(temporal_checkpointing=True),
        )
    )
    assert whole != tiled and whole == checkpointed
