"""EffiVMT: motion transfer for video diffusion transformers (arXiv 2506.05207), as a library.

Shape letters used in every docstring of this package:

B batch, F latent frames, T pixel frames, H W height and width, S tokens, N heads, D head width, C channels,
L layers, R LoRA rank.
"""

from effivmt.versions import __version__ as __version__
