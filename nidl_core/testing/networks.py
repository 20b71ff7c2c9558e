"""Checks of encoders and decoders: any shape they take, they take exactly.

Shapes: x (N, C, *S) -> h (N, F); z (N, L) -> theta (N, *output_shape).
"""

from __future__ import annotations

import re

import torch

from nidl_core.errors import ShapeError
from nidl_core.testing.cases import Case
from nidl_core.testing.catalogue import EVERYWHERE, check
from nidl_core.testing.subjects import assert_close, shapes_of, subject, subjects

NETWORKS = ("encoders", "decoders")


@check(*NETWORKS, backends=EVERYWHERE)
def check_shapes(case: Case) -> None:
    """Each shape that it takes gives exactly the promised output, odd and uneven ones included."""
    for shape in shapes_of(case):
        built = subject(case, shape)
        n = 3
        expected = (built.module.out_features,) if case.kind == "encoders" else shape
        found = tuple(built(*built.inputs(n)).shape)
        assert found == (n, *expected), (
            f"built for {shape}, a batch of {n} gives {found}, not {(n, *expected)}"
        )


@check(*NETWORKS, backends=EVERYWHERE)
def check_batch_of_one(case: Case) -> None:
    """A single sample is a batch, in evaluation and in training: the last batch may be one."""
    for built in subjects(case):
        for training in (False, True):
            built.module.train(training)
            found, mode = built(*built.inputs(1)), "training" if training else "evaluation"
            assert found.shape[0] == 1, f"a batch of one gives {tuple(found.shape)} in {mode}"
            assert bool(found.isfinite().all()), f"a batch of one gives NaN or infinity in {mode}"


@check(*NETWORKS)
def check_refusals(case: Case) -> None:
    """A shape that it cannot take is refused with ShapeError when built, in words that give it."""
    for shape in (shape for shape in case.shapes if shape not in case.accepted):
        try:
            case.build(shape)
        except ShapeError as err:
            text = str(err)
            assert all(re.search(rf"\b{size}\b", text) for size in shape), (
                f"the refusal of {shape} does not say what came: {text!r}"
            )


@check("encoders")
def check_out_features(case: Case) -> None:
    """`out_features` is an int that is known when it is built."""
    for built in subjects(case):
        found = getattr(built.module, "out_features", None)
        assert isinstance(found, int) and found > 0, f"out_features is {found!r}"


@check(*NETWORKS, "likelihoods", backends=EVERYWHERE)
def check_samples_do_not_see_each_other(case: Case) -> None:
    """In evaluation a sample's output, or its log_prob, does not depend on the others in its batch."""
    for built in subjects(case):
        built.module.eval()
        inputs = built.inputs(3)
        with torch.no_grad():
            together = built(*inputs)
            alone = built(*(x[1:2] for x in inputs))
        assert_close(
            alone, together[1:2], built.backend.share, "a sample alone, not beside two others"
        )
