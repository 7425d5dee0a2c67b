"""The stages of a transfer, one clip's way through them, and catalog runs."""
