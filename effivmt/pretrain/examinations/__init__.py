"""What the embedded models are examined in: captions, scenes, the scorer's choices."""
