"""Converts blocks in vLLM's KV cache to rows of bytes and back; a row has one block's data of all layers, in order."""

from collections.abc import Sequence

import torch


class BlockTensors:
    """The KV caches of an engine's layers, each with the same number of blocks along one of its dimensions.

    Raises ValueError for caches whose blocks cannot be identified.
    """

    def __init__(self, caches: dict[str, torch.Tensor], blocks: int) -> None:
        self._layers = [_by_block(name, cache, blocks) for name, cache in caches.items()]
        self._shapes = [tuple(layer.shape[1:]) for layer in self._layers]
        self._sizes = [layer[0].numel() * layer.element_size() for layer in self._layers]
        self.device = self._layers[0].device
        self.block_bytes = sum(self._sizes)
        """Bytes of a block in all layers."""

    def take(self, ids: Sequence[int]) -> torch.Tensor:
        """Returns copies of blocks: uint8 [len(ids), block_bytes], on the cache's device."""
        chosen = torch.tensor(ids, device=self.device)
        parts = [_bytes_of(layer.index_select(0, chosen)) for layer in self._layers]
        return torch.cat(parts, dim=1)

    def put(self, rows: torch.Tensor, ids: Sequence[int]) -> None:
        """Writes `rows` (uint8 [len(ids), block_bytes], on any device) to the blocks `ids`."""
        chosen = torch.tensor(ids, device=self.device)
        rows = rows.to(self.device)
        parts = rows.split(self._sizes, dim=1)
        for layer, part, shape in zip(self._layers, parts, self._shapes, strict=True):
            layer.index_copy_(0, chosen, part.contiguous().view(layer.dtype).view(len(ids), *shape))


def _bytes_of(blocks: torch.Tensor) -> torch.Tensor:
    return blocks.reshape(len(blocks), -1).view(torch.uint8)


def _by_block(name: str, cache: torch.Tensor, blocks: int) -> torch.Tensor:
    """Returns a view of a layer's cache whose first dimension has one entry per block.

    In the cache, blocks are the first dimension, or the second one after keys and values. If the attention has smaller
    blocks than the cache, several of them make one block. Raises ValueError for other shapes.
    """
    if cache.element_size() == 1:
        cache = cache.view(torch.uint8)  # not all operations support all 8-bit formats
    for dimension in (0, 1):
        parts, rest = divmod(cache.shape[dimension], blocks)
        if parts and not rest and (dimension == 0 or cache.shape[0] == 2):
            return cache.unflatten(dimension, (blocks, parts)).movedim(dimension, 0)
    raise ValueError(f"the KV cache of {name} has the shape {tuple(cache.shape)}, no dimension is {blocks} blocks")
