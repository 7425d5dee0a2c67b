"""HTML pages: of one clip, and of a catalog run."""
