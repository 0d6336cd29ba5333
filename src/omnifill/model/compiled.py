"""A step of one slot as one compiled function, for networks whose layers are so small that calling
them takes longer than what they do (figures in docs/log.md)."""

from __future__ import annotations

import torch

from omnifill.errors import RequestError
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.model.streaming import Stack


def compile_steps(network: Network) -> None:
    """Compile the step of a recurrent or convolutional network. RequestError for others, and where
    there is no compiler."""
    if not isinstance(network.backbone, Stack) or network.backbone.full:
        raise RequestError("compiled steps are for recurrent and convolutional networks that write "
                           "from left to right")  # fmt: skip
    backbone = network.backbone
    backbone.quick = torch.compile(backbone.one_slot, dynamic=False)
    cache = network.new_cache(1, 1)
    ids = torch.zeros(1, 1, dtype=torch.long)
    try:
        with torch.no_grad():
            backbone(network.embed(ids), ids, Mask("causal"), cache.inner)
    except Exception as error:  # whatever the compiler of this machine says
        backbone.quick = None
        why = str(error).strip().splitlines()[0][:200]
        raise RequestError(f"the step cannot be compiled here ({why})") from None
