"""Embedded models, sample clips and the benchmark's clips; installed as the package `effivmt_data`."""
