"""The EffiVMT method on tensors: head classification, dual path, LoRA tuning, adaptive RoPE, fused rendering."""
