"""The code of a registered adapter (MLflow's "models from code"): MLflow copies this file into every version.

`mlflow.pyfunc.load_model("models:/NAME@champion").predict(["a prompt"])` gives one mp4, as bytes, per prompt. It uses
the backbone that the adapter was made for, found under the path it had then; EFFIVMT_BACKBONE names another. It imports
the public interface of `effivmt` alone, so that versions keep loading when modules of the package move. With
`params={"images": [...]}`, a file's content in base64 for each prompt, which may be empty, the videos begin with these.
"""

import base64
import binascii
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

BACKBONE = "EFFIVMT_BACKBONE"


class MotionAdapter(PythonModel):
    """Renders prompts with the motion of the clip that the adapter was made from."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verifies the adapter's files and finds the backbone; AdapterError or BackboneError otherwise."""
        import effivmt

        self._adapter = Path(context.artifacts["adapter"])
        backbone = effivmt.read_manifest(self._adapter)["backbone"]
        params = effivmt.Params.model_validate(context.model_config)
        if path := os.environ.get(BACKBONE):
            other = params.backbone.model_copy(update={"path": path, "revision": None})
            params = params.model_copy(update={"backbone": other})
        try:
            with TemporaryDirectory(prefix="effivmt-") as folder:  # the working folder stays as it is
                self._work = effivmt.open_workspace(params, folder)
        except effivmt.BackboneError as error:
            raise effivmt.BackboneError(
                f"{error}; set {BACKBONE} to the folder or hub id of backbone {backbone['id']} "
                f"(digest {backbone['digest'][:12]})"
            ) from error

    def predict(
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> list[bytes]:
        """One mp4 per row of the first column; params: seed, appearance_strength, motion_strength,
        motion_boundary, images."""
        import effivmt

        chosen = dict(params or {})
        given = [str(image) for image in chosen.pop("images", ())]
        if "seed" in chosen:
            chosen["seeds"] = (int(chosen.pop("seed")),)
        tree = self._work.params.model_dump()
        try:
            settings = effivmt.Params.model_validate(tree | {"render": tree["render"] | chosen})
        except ValueError as error:  # such as a negative strength
            raise effivmt.ParamsError(f"params are wrong: {' '.join(str(error).split())[:300]}") from error
        prompts = [str(prompt) for prompt in model_input.iloc[:, 0]]
        with TemporaryDirectory(prefix="effivmt-") as folder:
            images = [_write(Path(folder) / f"image-{number}", image) for number, image in enumerate(given, 1)]
            work = replace(self._work, params=settings, store=effivmt.Store(Path(folder) / "store"))
            rendered = effivmt.render(work, prompts, self._adapter, images=images)
            each = len(settings.render.seeds)
            return [video.artifact.file("video.mp4").read_bytes() for video in rendered[::each]]


def _write(path: Path, image: str) -> Path:
    """Writes an image that is given in base64 to a file, and returns its path; ParamsError where it is none."""
    import effivmt

    try:
        path.write_bytes(base64.b64decode(image, validate=True))
    except binascii.Error as error:
        raise effivmt.ParamsError(
            f"images: {image!r:.40} is no base64 text ({error}); encode the file's bytes"
        ) from error
    return path


set_model(MotionAdapter())
