"""Subclasses with signatures of their own, and what a constructor was given on its way to the base."""

from __future__ import annotations

import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import nidl_core
from nidl_core.errors import NidlError
from nidl_vae import VAE

D = 6


class Narrow(VAE):
    """Fixes the networks, and takes neither them nor Trainer arguments."""

    def __init__(self, width=8, random_state=0):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(D, width))
        super().__init__(
            encoder, nn.Linear(2, D), latent_dim=2, max_epochs=1, random_state=random_state
        )


class Fixing(VAE):
    """Gives its base the networks, and hands all else on."""

    fixed = frozenset({"encoder", "decoder"})

    def __init__(self, width=8, **kwargs):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(D, width))
        super().__init__(encoder, nn.Linear(kwargs.get("latent_dim", 2), D), **kwargs)


class Extended(VAE):
    def __init__(self, encoder, decoder, extra=1, **kwargs):
        super().__init__(encoder, decoder, extra=extra, **kwargs)


class AssignsFirst(VAE):
    def __init__(self, encoder, decoder, extra=1, **kwargs):
        self.extra = extra
        super().__init__(encoder, decoder, **kwargs)


class Forgets(VAE):
    def __init__(self, encoder, decoder, extra=1, **kwargs):
        super().__init__(encoder, decoder)


@pytest.fixture
def x():
    return torch.randn(12, D, generator=torch.Generator().manual_seed(0))


def test_a_subclass_that_fixes_its_networks_is_cloned_and_searched_by_its_own_parameters(x):
    vae = Narrow(width=4)
    assert set(vae.get_params(deep=False)) == {"width", "random_state"}
    assert clone(vae).fit(x).encoder[1].out_features == 4
    search = GridSearchCV(Narrow(), {"width": [3, 5]}, cv=2).fit(x.numpy())
    assert search.best_estimator_.encoder[1].out_features == search.best_params_["width"]


def test_fixed_parameters_are_left_out_of_those_that_users_may_give(x):
    vae = Fixing(width=4, latent_dim=2, max_epochs=1, random_state=0)
    params = vae.get_params(deep=False)
    assert params["width"] == 4
    assert params["max_epochs"] == 1
    assert not {"encoder", "decoder"} & set(params)
    assert clone(vae).fit(x).encoder[1].out_features == 4
    with pytest.raises(NidlError, match="has no parameter 'encoder'"):
        vae.set_params(encoder=nn.Flatten())


@pytest.mark.parametrize("cls", [Extended, AssignsFirst])
def test_a_parameter_of_a_subclass_is_kept_however_it_is_set(cls):
    vae = cls(nn.Flatten(), nn.Linear(2, D), extra=5, latent_dim=2, encoder_out_dim=D)
    assert vae.extra == vae.get_params()["extra"] == clone(vae).extra == 5
    assert vae.set_params(extra=6).extra == 6


@pytest.mark.parametrize("cls", [Narrow, Fixing])
def test_a_subclass_that_makes_its_networks_itself_is_saved_by_its_own_parameters(cls, x, tmp_path):
    given = {} if cls is Narrow else {"latent_dim": 2, "max_epochs": 1, "random_state": 0}
    vae = cls(width=4, **given).fit(x)
    with nidl_core.estimators.temporary("own", cls):
        vae.save(tmp_path / "m.nidl")
        loaded = nidl_core.load(tmp_path / "m.nidl")
    assert set(loaded.get_params(deep=False)) == set(vae.get_params(deep=False))
    assert loaded.width == loaded.encoder[1].out_features == 4
    assert torch.equal(loaded.fc_mu.weight, vae.fc_mu.weight)


def test_what_a_subclass_forgets_to_hand_on_is_told():
    with pytest.raises(
        NidlError, match=r"was given latent_dim=3 but handed latent_dim=32 on to its"
    ):
        Forgets(nn.Flatten(), nn.Linear(2, D), latent_dim=3)
