r"""The network that reads a substitution: one for its site, one for the change, and their product.

With :math:`z` made of the numbers of the site and :math:`e` those of the change (`sites`),

.. math:: h = O \, \mathrm{gelu}\bigl(\mathrm{norm}(W z + V e + U z \odot T e + p)\bigr)

where p is a vector of the assay's property. A variant is the *sum* of its substitutions, so that
what is linear in it adds up over them. The same network stands below every method that learns
on sites: MAML and its family move its weights, the ranker (`learn.ranker`) learns a process on it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from mutmeta_lib.models.encoder import Encoder, fingerprint
from mutmeta_lib.models.sites import CHANGES, UNTOLD
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

SUM = "substitutions"
"""The pooling of site reads: the sum over a variant's substitutions."""

_INNER, _UNTOLD_SHARE = 64, 0.2


class Latent(NamedTuple):
    """What the network makes of substitutions ``(..., n, m)``; ``real`` is 0 at padding.

    ``hidden`` is h, ``(..., m, 32)``, 0 at padding; ``site`` and ``change`` are coordinates for
    kernels, ``places`` positions in the chain.
    """

    hidden: Tensor
    site: Tensor
    change: Tensor
    places: Tensor
    real: Tensor


class Trunk(nn.Module):
    """The network of the module's first lines; ``location`` and ``scale`` ``(d,)`` are of sites.

    In training mode it drops numbers of sites, hidden units and, for a fifth of the calls, what is
    told of the property.
    """

    def __init__(self, location: Tensor, scale: Tensor, *, generator: torch.Generator):
        super().__init__()
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)
        changes, z = CHANGES.shape[-1], 64
        self.site = nn.Sequential(
            nn.Dropout(0.4),
            nn.Linear(len(location), 128),
            nn.LayerNorm(128),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(128, z),
            nn.Dropout(0.3),
        )
        self.of_site, self.by_site = nn.Linear(z, _INNER), nn.Linear(z, _INNER, bias=False)
        self.of_change = nn.Linear(changes, _INNER, bias=False)
        self.by_change = nn.Linear(changes, _INNER, bias=False)
        self.property = nn.Embedding(UNTOLD + 1, _INNER)
        self.norm, self.drop, self.out = (
            nn.LayerNorm(_INNER),
            nn.Dropout(0.15),
            nn.Linear(_INNER, 32),
        )
        self.site_coordinates = nn.Linear(z, 8)
        self.change_coordinates = nn.Linear(changes, 6, bias=False)
        self._draw(generator)

    def _draw(self, generator: torch.Generator) -> None:
        """Uniform in ±1/sqrt(fan_in), torch's own rule for linear layers; a small property term."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    bound = module.in_features**-0.5
                    for value in module.parameters():
                        value.uniform_(-bound, bound, generator=generator)
            self.property.weight.normal_(std=0.02, generator=generator)

    def standardised(self, sites: Tensor) -> Tensor:
        """Numbers of sites with mean 0 and variance 1 over meta-training, no farther off than 5."""
        return ((sites - self.location) / self.scale).clamp(-5, 5)

    def forward(self, rows: Tensor, mask: Tensor) -> Latent:
        """Rows ``(..., n, m, d + 73)`` and mask ``(..., n, m)`` of `sites.SiteRows`."""
        d = len(self.location)
        z, e = self.site(self.standardised(rows[..., :d])), rows[..., d:-2]
        places, told = rows[..., -2], rows[..., -1].long()
        if self.training:
            silent = torch.rand(rows.shape[:-3], device=rows.device) < _UNTOLD_SHARE
            told = told.masked_fill(silent[..., None, None], UNTOLD)
        mixed = self.of_site(z) + self.of_change(e) + self.by_site(z) * self.by_change(e)
        h = self.out(self.drop(gelu(self.norm(mixed + self.property(told)))))
        real = mask.to(h.dtype)
        coordinates = self.site_coordinates(z), self.change_coordinates(e)
        return Latent(h * real[..., None], *coordinates, places, real)


def trunk_encoder(location: Tensor, scale: Tensor, *, seed: int, source: str = "") -> Encoder:
    """A fresh trunk in the place of an encoder; ``source`` is the hash of the encoder below it."""
    trunk = Trunk(location, scale, generator=torch.Generator().manual_seed(seed)).eval()
    about = {"encoder": "site trunk, random weights", "seed": seed, "below": source}
    return Encoder("trunk", TINY_VOCABULARY, 0, 32, trunk, fingerprint(trunk, about), about)
