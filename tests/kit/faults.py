"""The table of faults: a check, a component that it is to fail, and what it is to say.

`also` names other quick checks that the same fault breaks; None for one that breaks nearly all.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import bad_estimators
import bad_likelihoods
import bad_losses
import bad_networks
from good_components import SMALL, LinearEncoder

from nidl_core.registry import Entry
from nidl_core.testing.cases import Case, cases_of, kind_of

# Those that start processes or compile.
SLOW = frozenset(
    {"check_import_alone", "check_fresh_process", "check_ddp", "check_compile", "check_ddp_step"}
)


@dataclass(frozen=True)
class Fault:
    """One row. `text` is a part of the message."""

    check: str
    case: Case
    text: str
    also: frozenset[str] | None

    def __repr__(self) -> str:
        return f"{self.check}-{self.case.name}"


def of(module: Any, *rows: tuple[Any, ...]) -> list[Fault]:
    """Rows (check, class, text, other checks) of a module, as faults."""
    found = []
    for check, name, text, *also in rows:
        cls = getattr(module, name)
        case = cases_of(kind_of(cls), cls)[0]
        if case.kind != "estimators":
            case = dataclasses.replace(case, shapes=SMALL)
        also_names = None if also == [None] else frozenset(f"check_{word}" for word in also)
        found.append(Fault(f"check_{check}", case, text, also_names))
    return found


def named(check: str, name: str, target: str, text: str = "") -> Fault:
    """A sound encoder, were it not for its name or the module that the name leads to."""
    case = Case("encoders", LinearEncoder, shapes=SMALL)
    case.__dict__["entry"] = Entry("encoders", name, "nidl-bad", "1.0", target)
    return Fault(f"check_{check}", case, text, frozenset())


ALONE = [
    named(
        "name", "CNN-3d", "good_components:LinearEncoder", "the name 'CNN-3d' should be lower case"
    ),
    named("import_alone", "a", "bad_imports.warns:A", "Warning: bad_imports.warns is deprecated"),
    named("import_alone", "b", "bad_imports.warns:B", "No module named 'nidl_no_such_dependency'"),
    named("import_alone", "c", "bad_imports.exits:C", "the process ended with status 0"),
    named("import_alone", "d", "bad_imports.meddles:D", "import bad_imports.meddles changes the "),
]
NETWORKS = of(
    bad_networks,
    ("interface", "Abstract", "it lacks forward", None),
    ("interface", "FromTheFuture", "it is made for interface version 99"),
    ("signature", "OtherName", "OtherName.__init__ must take input_shape", None),
    ("signature", "TakesAnything", "*args or **kwargs hides its parameters"),
    ("defaults", "ObjectDefault", "is no plain data: Object of type type is not JSON"),
    ("defaults", "NanDefault", "clip=nan is no plain data"),
    ("defaults", "IntKeys", "gains={1: 2.0} comes back from JSON as {'1': 2.0}"),
    ("docstring", "Undocumented", "Undocumented has no docstring"),
    ("docstring", "WrongExample", "Expected:\n    5\nGot:\n    4"),
    ("registers_its_parts", "NoSuperInit", "must call super().__init__()", None),
    (
        *("registers_its_parts", "PlainList", "more holds modules or parameters in a plain list"),
        *("dtype", "device", "state_dict"),
    ),
    ("registers_its_parts", "BuiltInEvaluation", "just built is in training mode"),
    ("registers_its_parts", "RefusesAll", "refuses all of [(7,), (1, 6, 5), (2, 3, 4, 5)]", None),
    ("gradients", "UnusedParameter", "spare.weight gets no gradient: it is not used"),
    ("gradients", "InfiniteGradient", "the gradient of layer.weight is not finite"),
    ("gradients", "Detached", "the output has no gradient: it is detached"),
    ("gradients", "BlindToInput", "the output does not depend on the input"),
    ("inputs_unchanged", "InPlace", "an input was changed in place"),
    ("dtype", "SinglePrecision", "float64 in, torch.float32 out"),
    ("device", "CpuTensor", "device cpu is not on the expected device meta"),
    ("seeded", "FreshNumpyWeights", "built: layer.bias differs"),
    ("seeded", "FreshNoise", "one seed gives two training outputs"),
    (
        *("seeded", "AlwaysDropout", "evaluation depends on the random state"),
        *("leaves_torch_alone", "samples_do_not_see_each_other"),
    ),
    ("leaves_torch_alone", "DrawsForNothing", "evaluation moves the random state of torch"),
    ("leaves_torch_alone", "SetsThreads", "it changes the number of torch threads"),
    ("leaves_torch_alone", "Seeds", "it seeds torch: whatever the seed was"),
    ("state_dict", "PlainStatistic", "loaded from its state_dict, it gives other outputs"),
    ("pickle", "Lambda", "it cannot be pickled: Can't pickle local object"),
    ("compile", "OtherwiseCompiled", "compiled, it gives something else"),
    ("compile", "OtherGradientCompiled", "the gradient of layer.weight: compiled, it gives"),
    ("ddp", "InTurns", "Expected to have finished reduction in the prior iteration"),
    ("shapes", "LosesOddSizes", "built for (1, 6, 5), a batch of 3 gives (3, 1, 6, 4)"),
    ("batch_of_one", "BatchNorm", "Expected more than 1 value per channel when training"),
    (
        *("batch_of_one", "Squeezes", "a batch of one gives (4,) in evaluation"),
        "samples_do_not_see_each_other",
    ),
    (
        *("batch_of_one", "DividesByItsDeviation", "gives NaN or infinity in evaluation"),
        "samples_do_not_see_each_other",
    ),
    ("refusals", "MuteRefusal", "the refusal of (2, 3, 4, 5) does not say what came"),
    ("refusals", "VagueRefusal", "the refusal of (7,) does not say what came"),
    ("out_features", "LateFeatures", "out_features is None", "shapes"),
    ("samples_do_not_see_each_other", "Centres", "a sample alone, not beside two others"),
)
LIKELIHOODS = of(
    bad_likelihoods,
    (
        *("distribution", "ForgottenIndependent", "batch and event are ((3, 7), ()), not"),
        *("normalised", "samples", "reference"),
    ),
    ("distribution", "NoDistribution", "forward gives tuple, no Distribution", None),
    (
        *("theta_is_unconstrained", "UnboundedScale", "log_prob is not finite for theta*30"),
        "reference",
    ),
    ("channels", "NoSplit", "theta of 3 channels was taken, P is 2: use self.split"),
    ("precision", "RoundedScale", "log_prob has the rounding of a bfloat16 theta"),
    ("precision", "HalfMean", "the mean is torch.bfloat16 of a bfloat16 theta"),
    ("support", "TakesAllData", "data outside the support 'positive' were taken"),
    ("support", "TakesNan", "data outside the support 'real' were taken"),
    ("support", "RefusesItsOwn", "RefusesItsOwn takes counts 0, 1, 2"),
    ("normalised", "NoConstant", "the probabilities sum to 2.50663", "samples", "reference"),
    ("normalised", "SumsToMore", "the probabilities sum to 1.669", "samples", "reference"),
    ("samples", "WiderSamples", "by log_prob, 0.2000 of 100000 samples"),
    ("samples", "OtherMean", "the mean is 1.492, that of 100000 samples 1.69"),
    ("reference", "VarianceForScale", "log_prob is not the reference's"),
    ("gradcheck", "DetachedScale", "Jacobian mismatch for output 0 with respect to input 0"),
    ("evaluation_learns_nothing", "LearnsInEvaluation", "evaluation changes variance"),
    (
        *("samples_do_not_see_each_other", "ScaleOfTheBatch", "a sample alone, not beside two"),
        "reference",
    ),
)
LOSSES = of(
    bad_losses,
    ("figures", "OneTensor", 'it gives no dict with "loss"', None),
    ("figures", "FigureForEachSample", "rows is no scalar tensor", "reduction", "autocast"),
    ("figures", "LeavesOutQ", "the loss leaves out q's mean"),
    ("reduction", "Sums", "of the batch is 57.2755, the mean over its samples 14.3189"),
    ("autocast", "HalfUnderAutocast", "squares is torch.bfloat16 under autocast"),
    ("autocast", "CoarseUnderAutocast", "under autocast, 7.3"),
)
ESTIMATORS = of(
    bad_estimators,
    ("repeatable", "FreshEntropy", "fitted twice with one seed: down.weight differs", "refit"),
    ("repeatable", "NoSeed", "it takes no random_state, so that no fit can be repeated", None),
    ("random_state_counts", "OneSeed", "random_state changes nothing"),
    ("refit", "KeepsWeights", "fitted again: down.weight differs"),
    ("random_state_is_left_alone", "SeedsNumpy", "the random state of numpy is another afterwards"),
    ("random_state_is_left_alone", "WorksOnTheData", "the data were changed in place", None),
    ("transform_is_by_row", "CentresBatches", "transformed in batches of 5, it gives"),
    ("fits", "LogsInfinity", "train/level is inf in {"),
    ("ddp_step", "UnusedParameter", "Expected to have finished reduction in the prior iteration"),
)
