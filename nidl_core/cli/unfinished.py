"""The names of what `nidl fit` writes while it trains: a result's own files come at its end."""

MODEL = "unfinished.nidl"
METRICS = "unfinished.csv"
SPEC = "unfinished.json"
