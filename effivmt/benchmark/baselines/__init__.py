"""The peer methods of the benchmark, one module each, written from their papers, on the same frozen backbone."""
