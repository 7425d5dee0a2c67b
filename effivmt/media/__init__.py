"""Video and image files: decoding, encoding, and figures."""
