"""What runs: the flows and the command line."""

import effivmt_tasks  # noqa: F401  (its settings must stand before an engine is imported)
