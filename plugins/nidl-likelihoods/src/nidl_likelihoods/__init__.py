"""Likelihoods for nidl: raw decoder output in, p(x | z) out. `normal`, `laplace`, `bernoulli`."""

from nidl_likelihoods.bernoulli import Bernoulli
from nidl_likelihoods.laplace import Laplace
from nidl_likelihoods.normal import Normal

__all__ = ["Bernoulli", "Laplace", "Normal"]
