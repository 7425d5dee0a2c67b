"""Each part of the backbone is loaded once a clip, and the text encoder is gone before the transformer comes."""

from staging import transfer

from effivmt.method.backbone import Backbone
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


def test_parts_are_loaded_once_a_clip(tmp_path, params, clip, monkeypatch):
    loads: list[tuple[str, set[str]]] = []
    load = Backbone._model

    def counted(self: Backbone, kind, name, dtype, device):
        loads.append((name, set(self._parts)))
        return load(self, kind, name, dtype, device)

    monkeypatch.setattr(Backbone, "_model", counted)
    clip = clip.model_copy(update={"prompts": (*clip.prompts, "a yellow star")})
    transfer(Workspace(Store(tmp_path / "store"), params), clip)
    assert [name for name, _ in loads] == ["vae", "text_encoder", "transformer", "vae"]
    held = dict(loads[1:3])
    assert "vae" not in held["text_encoder"] and not held["transformer"] & {"text_encoder", "vae"}
