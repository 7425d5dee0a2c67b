"""The code of a registered adapter (MLflow's "models from code"): MLflow copies this file into every version.

`mlflow.pyfunc.load_model("models:/NAME@champion").predict(["a prompt"])` gives one mp4, as bytes, a prompt. The
backbone is the one that the adapter was made for, where it then lay; EFFIVMT_BACKBONE names another place.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

BACKBONE = "EFFIVMT_BACKBONE"


class MotionAdapter(PythonModel):
    """Renders prompts with the motion of the clip that the adapter was made from."""

    def load_context(self, context: PythonModelContext) -> None:
        """Checks every byte of the adapter and finds the backbone; AdapterError or BackboneError otherwise."""
        from effivmt.backbone_folder import find_backbone
        from effivmt.config import Params
        from effivmt.errors import BackboneError
        from effivmt.manifest import read_facts

        self._adapter = Path(context.artifacts["adapter"])
        made_for = read_facts(self._adapter)["backbone"]
        params = Params.model_validate(context.model_config)
        path = os.environ.get(BACKBONE) or params.backbone.path
        try:
            found = find_backbone(path)
        except BackboneError as error:
            raise BackboneError(
                f"{error}; set {BACKBONE} to the folder or hub id of backbone {made_for['id']} "
                f"(digest {made_for['digest'][:12]})"
            ) from error
        self._params = params.model_copy(update={"backbone": params.backbone.model_copy(update={"path": path})})
        self._loaded: dict[str, object] = {"folder": found}

    def predict(
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict[str, object] | None = None
    ) -> list[bytes]:
        """One mp4 a row of the first column; params: seed, appearance_strength, motion_strength."""
        from effivmt import stages
        from effivmt.store import Store
        from effivmt.workspace import Workspace

        chosen = dict(params or {})
        if "seed" in chosen:
            chosen["seeds"] = (chosen.pop("seed"),)
        settings = self._params.model_copy(update={"render": self._params.render.model_copy(update=chosen)})
        with TemporaryDirectory(prefix="effivmt-") as folder:
            work = Workspace(Store(Path(folder)), settings, loaded=self._loaded)
            prompts = [str(prompt) for prompt in model_input.iloc[:, 0]]
            rendered = stages.render(work, list(dict.fromkeys(prompts)), self._adapter)
            videos = {one.prompt: one.artifact.file("video.mp4").read_bytes() for one in rendered}
        return [videos[prompt] for prompt in prompts]


set_model(MotionAdapter())
