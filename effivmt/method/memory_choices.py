"""What a run does to fit into a GPU's memory: chosen by `effivmt.planning`, obeyed by the backbone and the stages."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class MemoryChoices:
    """Each of these saves memory of the GPU at a cost.

    text_on_host: texts are encoded on the processor. spatial_checkpointing, temporal_checkpointing: activations of that
    stage are computed again in its backward pass. activations_on_host: what temporal keeps for that waits in the host's
    memory. tiled_decoding: videos are decoded in overlapping tiles. offloaded_blocks: where nothing is tuned, the
    transformer's blocks wait in the host's memory, the next one on its way. float8_base: the frozen weights are kept in
    8 bits. Only tiles and 8 bits change the result.
    """

    text_on_host: bool = False
    spatial_checkpointing: bool = False
    temporal_checkpointing: bool = False
    activations_on_host: bool = False
    tiled_decoding: bool = False
    offloaded_blocks: bool = False
    float8_base: bool = False

    def describe(self) -> str:
        """The choices that were made, in words."""
        words = {
            "text_on_host": "texts encoded on the processor",
            "spatial_checkpointing": "gradient checkpointing in spatial",
            "temporal_checkpointing": "gradient checkpointing in temporal",
            "activations_on_host": "activations of temporal kept on the host",
            "tiled_decoding": "tiled decoding",
            "offloaded_blocks": "blocks offloaded to the host, with prefetch, in heads and render",
            "float8_base": "frozen weights in 8 bits (float8_e4m3fn)",
        }
        made = [words[name] for name, chosen in asdict(self).items() if chosen]
        return "; ".join(made) or "nothing"
