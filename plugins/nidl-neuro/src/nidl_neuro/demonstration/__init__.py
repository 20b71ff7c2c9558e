"""The parts of `nidl demo brains`."""
