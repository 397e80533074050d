"""Whatever generates a document, a figure, a table or a measurement; see ``python -m tools --help``."""
