"""Metrics of generated videos: text, appearance and motion against a reference, and frame quality."""
