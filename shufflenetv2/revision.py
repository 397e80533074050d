"""The commit this copy was archived from; empty in a work tree, filled in by ``git archive`` (see .gitattributes)."""

_STAMP = "$Format:%h %cs$"

REVISION = "" if _STAMP.startswith("$") else _STAMP
