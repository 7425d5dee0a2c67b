"""What computes attention, by diffusers' names."""

from effivmt.errors import ParamsError

NATIVE = "native"
PACKAGES = {
    "flash": "flash-attn (pip install flash-attn)",
    "_flash_3": "Flash Attention 3 (built from the sources of flash-attn)",
    "xformers": "xformers (pip install xformers)",
}
"""What has to be installed, by backend."""


def check_attention(name: str, device: str, dtype: str) -> None:
    """ParamsError where a backend cannot be used: its package is missing, or it has no GPU or no bfloat16."""
    if name == NATIVE:
        return
    advice = f"install it, or set backbone.attention to {NATIVE}"
    if device != "cuda":
        raise ParamsError(
            f"backbone.attention is {name}, which needs a GPU, but the device is {device}; set it to {NATIVE}"
        )
    if dtype == "float32" and name != "xformers":
        raise ParamsError(
            f"backbone.attention is {name}, which computes in bfloat16, but backbone.dtype is float32; set it to "
            f"bfloat16, or backbone.attention to {NATIVE}"
        )
    from diffusers.models.attention_dispatch import AttentionBackendName, _check_attention_backend_requirements

    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except RuntimeError as error:
        raise ParamsError(f"backbone.attention is {name}, for which {PACKAGES[name]} is missing; {advice}") from error
