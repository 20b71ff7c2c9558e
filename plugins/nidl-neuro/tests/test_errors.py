"""ScanError: one text, three facts, and it crosses process borders."""

import pickle

from nidl_core.errors import DataError
from nidl_neuro.errors import ScanError


def test_a_scan_error_says_its_facts_and_survives_pickling():
    error = ScanError("sub-01.nii.gz", "the file is empty", "Copy it again.")
    restored = pickle.loads(pickle.dumps(error))
    assert isinstance(restored, ScanError) and isinstance(restored, DataError)
    assert str(restored) == "sub-01.nii.gz: the file is empty. Copy it again."
    assert vars(restored) == vars(error)
