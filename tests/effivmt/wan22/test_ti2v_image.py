"""A transfer on the layout of Wan 2.2 TI2V-5B whose video begins with an image, as stock diffusers renders it."""

import numpy as np
from exporting import fused_all
from stock_images import stock, video

from effivmt.media.video import write_image
from effivmt.method.adapter import load_adapter
from effivmt.pipeline.stages.first_frame import fitted
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store
from effivmt.world.scenes import draw_clip


def test_an_export_gives_the_same_video_in_the_stock_pipeline(ti2v_folder, ti2v_params, zigzag, tmp_path):
    write_image(tmp_path / "picture.png", draw_clip(5, 3, kinds={"object": 1.0}, num_frames=17).frames[0])
    sampling = ti2v_params.sampling.model_copy(update={"mode": "dense"})
    render = ti2v_params.render.model_copy(update={"baseline": False})
    params = ti2v_params.model_copy(update={"sampling": sampling, "render": render})
    work = Workspace(Store(tmp_path / "store"), params)
    assert work.folder.shape.first_frame and not work.folder.shape.needs_image
    clip = zigzag.model_copy(update={"images": (tmp_path / "picture.png",)})
    folder = run_clip(work, clip).motion.folder("adapter")
    pipeline = stock(ti2v_folder, image_encoder=None, image_processor=None)
    prompts, picture = work.backbone.encode_texts(["a red square", "blur"]), fitted(work, clip.images[0])
    plain = video(pipeline, picture, prompts)
    for name in ("spatial", "temporal"):
        pipeline.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name=name)
    pipeline.set_adapters(["spatial", "temporal"])
    with fused_all(work.backbone, load_adapter(folder)):
        ours = video(work.backbone.image_pipeline(5.0), picture, prompts)
    expected = video(pipeline, picture, prompts)
    assert np.abs(ours - expected).max() <= 1e-5 and np.abs(plain - expected).max() > 1e-3
