"""The readout: two gated equivariant blocks on the encoder's features, then a tensor per atom.

Equations after DTNet (Mao, Li and Tan, npj Comput. Mater. 2024) with the gated equivariant blocks
of PaiNN (Schütt et al., ICML 2021) extended to rank-2 features: per atom a_s·I + a_v⊗a_v + a_t,
averaged over the atoms of the cell; Born charges are such tensors too. All members of an ensemble
are evaluated in one pass; every parameter carries a leading member axis, and no quantity of one
member enters another.

Shapes: m members, a atoms (padded), c channels. Vectors are (m, a, 3, c) and rank-2 tensors
(m, a, 5, c), channels last, so that an equivariant linear map is one matrix product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class MemberLinear(nn.Module):
    """A separate linear map for each member: (m, ..., c_in) → (m, ..., c_out)."""

    def __init__(
        self, members: int, c_in: int, c_out: int, *, bias: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.gain = gain
        self.weight = nn.Parameter(torch.empty(members, c_in, c_out))
        self.bias = nn.Parameter(torch.zeros(members, 1, c_out)) if bias else None

    def reset(self, generators: list[torch.Generator]) -> None:
        """Uniform initial weights of variance gain²/(3 c_in), member by member."""
        bound = self.gain / math.sqrt(self.weight.shape[1])
        with torch.no_grad():
            for weight, generator in zip(self.weight, generators, strict=True):
                weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.bmm(x.flatten(1, -2), self.weight)
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], y.shape[-1])


@dataclass
class Width:
    """Channels of scalars, vectors and rank-2 tensors."""

    scalars: int
    vectors: int
    tensors: int


class GatedBlock(nn.Module):
    """Scalars see the norms of vectors and tensors and gate them in turn."""

    def __init__(self, members: int, width: Width) -> None:
        super().__init__()
        s, v, t = width.scalars, width.vectors, width.tensors
        self.sizes = (s, v, t)
        self.vector_in = MemberLinear(members, v, v, bias=False)
        self.vector_out = MemberLinear(members, v, v, bias=False)
        self.tensor_in = MemberLinear(members, t, t, bias=False)
        self.tensor_out = MemberLinear(members, t, t, bias=False)
        self.mix = MemberLinear(members, s + v + t, s)
        self.gates = MemberLinear(members, s, s + v + t)

    def forward(
        self, s: Tensor, v: Tensor, t: Tensor, dropout: Dropout
    ) -> tuple[Tensor, Tensor, Tensor]:
        norms = [smooth_norm(self.vector_in(v)), smooth_norm(self.tensor_in(t))]
        hidden = dropout(silu(self.mix(torch.cat([s, *norms], dim=-1))))
        update, vector_gate, tensor_gate = self.gates(hidden).split(self.sizes, dim=-1)
        return (
            silu(s + update),
            torch.sigmoid(vector_gate)[:, :, None] * self.vector_out(v),
            torch.sigmoid(tensor_gate)[:, :, None] * self.tensor_out(t),
        )


class Dropout:
    """Inverted dropout whose masks come from one generator per member; inactive without any."""

    def __init__(self, rate: float, generators: list[torch.Generator] | None = None) -> None:
        self.rate = rate
        self.generators = generators

    def __call__(self, x: Tensor) -> Tensor:
        if self.generators is None or self.rate == 0.0:
            return x
        kept = 1.0 - self.rate
        masks = [
            torch.empty(x.shape[1:], device=x.device).bernoulli_(kept, generator=g)
            for g in self.generators
        ]
        return x * torch.stack(masks) / kept


class Readout(nn.Module):
    """Features of atoms → tensors and scalars of the atoms.

    Parameters
    ----------
    members
        Networks evaluated side by side.
    inputs
        Channels of the features, context included among the scalars.
    latent
        Channels of the two gated blocks.
    n_tensors, n_scalars
        Outputs per atom.
    asymmetric
        Give the tensors an antisymmetric part too, as Born charges have.
    """

    basis: Tensor

    def __init__(
        self,
        members: int,
        inputs: Width,
        latent: Width,
        basis: Tensor,
        *,
        n_tensors: int,
        n_scalars: int = 0,
        asymmetric: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("basis", basis.float(), persistent=False)
        self.n_tensors = n_tensors
        self.scalar_in = MemberLinear(members, inputs.scalars, latent.scalars)
        self.vector_in = MemberLinear(members, inputs.vectors, latent.vectors, bias=False)
        self.tensor_in = MemberLinear(members, inputs.tensors, latent.tensors, bias=False)
        self.blocks = nn.ModuleList(GatedBlock(members, latent) for _ in range(2))
        self.scalar_out = MemberLinear(members, latent.scalars, n_tensors + n_scalars)
        self.vector_out = MemberLinear(members, latent.vectors, n_tensors, bias=False, gain=0.3)
        self.tensor_out = MemberLinear(members, latent.tensors, n_tensors, bias=False, gain=0.1)
        self.second_out = (
            MemberLinear(members, latent.vectors, n_tensors, bias=False, gain=0.3)
            if asymmetric
            else None
        )

    def reset(self, seeds: list[int], mean_outputs: Tensor) -> None:
        """Initialise each member from its seed.

        Isotropic parts and scalars start at ``mean_outputs`` (m, n_tensors + n_scalars).
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for module in self.modules():
            if isinstance(module, MemberLinear):
                module.reset(generators)
        assert self.scalar_out.bias is not None
        with torch.no_grad():
            self.scalar_out.bias.copy_(mean_outputs[:, None])

    def forward(self, s: Tensor, v: Tensor, t: Tensor, dropout: Dropout) -> tuple[Tensor, Tensor]:
        """Outputs per atom.

        Parameters
        ----------
        s, v, t
            Features (m, a, c_s), (m, a, 3, c_v), (m, a, 5, c_t).

        Returns
        -------
        tuple
            Tensors (m, a, n_tensors, 3, 3) and scalars (m, a, n_scalars).
        """
        s, v, t = dropout(silu(self.scalar_in(s))), self.vector_in(v), self.tensor_in(t)
        for block in self.blocks:
            s, v, t = block(s, v, t, dropout)
        traces, scalars = self.scalar_out(s).tensor_split([self.n_tensors], dim=-1)
        tensors = traces[..., None, None] * torch.eye(3, device=s.device)
        vector = self.vector_out(v).transpose(-1, -2)
        tensors = tensors + vector[..., :, None] * vector[..., None, :]
        if self.second_out is not None:
            dyad = vector[..., :, None] * self.second_out(v).transpose(-1, -2)[..., None, :]
            tensors = tensors + dyad - dyad.transpose(-1, -2)
        deviatoric = torch.einsum("makp,kij->mapij", self.tensor_out(t), self.basis)
        return tensors + deviatoric, scalars


def smooth_norm(x: Tensor) -> Tensor:
    """Norm over the component axis (m, a, d, c) → (m, a, c), differentiable at 0."""
    return (x.square().sum(dim=2) + 1e-6).sqrt()
