"""Tells how to go on to MLflow models that version 0.1 registered: their code imports this module first."""

raise ImportError(
    "this MLflow model was registered by EffiVMT 0.1, whose code does not load with this version; run its catalog or "
    "transfer again to register it anew (what the store has is not computed again), or render with it as it is: "
    "effivmt render models:/NAME@ALIAS --prompt TEXT --out FILE.mp4"
)
