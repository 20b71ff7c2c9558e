"""Its import warns, and where that is an error it falls back on what is not there."""

import warnings

try:
    warnings.warn("bad_imports.warns is deprecated", DeprecationWarning, stacklevel=1)
except DeprecationWarning:
    import nidl_no_such_dependency  # noqa: F401
