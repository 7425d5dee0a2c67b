"""A procedural world of captioned clips: what the embedded backbone and scorer are trained on.

`looks` names colours, shapes and patterns; `motions` makes paths and poses; `drawing` turns them into pixels;
`scenes` draws random captioned scenes. Everything is a pure function of numpy generators: the same seed gives the
same bytes.
"""
