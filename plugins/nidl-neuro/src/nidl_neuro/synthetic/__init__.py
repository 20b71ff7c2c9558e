"""The synthetic cohort, room by room; `nidl_neuro.datasets` is its face."""
