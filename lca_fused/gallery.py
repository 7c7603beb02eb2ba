"""Products by their photos' embeddings: a classifier that new products join without training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lca_fused.backends.tracing import autocast_dtype
from lca_fused.gallery_index import candidates

SCALE = 30.0
"""Of the cosines; a softmax of them is the probability that is shown."""
_UNIT = 1e-3  # of a vector's length, enough for 16-bit numbers
_ROUNDING = 1e-6
_AT_ONCE = 256  # photos held against all vectors


class GalleryError(ValueError):
    """Vectors or names do not make a gallery; the message says what is wrong with them."""


@dataclass(frozen=True, eq=False)
class Enrolled:
    """What a gallery is to know of a product.

    Attributes:
        embeddings: (n, D) floating point, n at least 1; of any length above 0.
        photos: a file name for each, or "" where none is kept; () for n times "".
    """

    embeddings: Tensor
    photos: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.photos:
            object.__setattr__(self, "photos", ("",) * len(self.embeddings))


class Gallery(nn.Module):
    """A cosine classifier: a product is as likely as the most alike of its vectors says.

    It stands where the linear layer of a `Classifier` does (`Classifier.set_gallery`), and its
    vectors are embeddings of photos, what the linear layer would see of them, of unit length. A
    softmax of its logits, scale * cosine, makes probabilities, as of any classifier: of two
    products whose cosines differ by ln(2) / scale one is twice as likely as the other.

    Of more than `lca_fused.gallery_index.EXACT` vectors on the CPU, and with faiss installed, the
    100 nearest are found by faiss and the cosines of these computed; the logits of products
    without any are -scale, the least there is. faiss may miss a vector; without it all are looked
    at.

    Galleries do not change: `with_products` and `without` return new ones.

    Args:
        embeddings: (P, D) floating point, of any length above 0; made of unit length.
        products: (P,) integers, the index in `names` of each vector's product.
        names: names of the K products, each once; every one has a vector.
        photos: a file name for each vector, or "" where none is kept; None for P times "".
        scale: factor of the cosines, above 0.

    Shape:
        (N, D) -> (N, K): scale times the greatest cosine over each product's vectors.

    Attributes:
        embeddings: (P, D) float32 of unit length; a buffer, as `products`.
        products: (P,) int64.
        in_features: D.
        out_features: K.

    Raises:
        GalleryError: shapes or counts do not fit, a vector is zero or not finite, a name comes
            twice or has no vector, or the scale is not above 0.
    """

    embeddings: Tensor
    products: Tensor

    def __init__(
        self,
        embeddings: Tensor,
        products: Tensor,
        names: Sequence[str],
        photos: Sequence[str] | None = None,
        scale: float = SCALE,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.photos = ("",) * len(products) if photos is None else tuple(photos)
        self.scale = float(scale)
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise GalleryError(f"scale is {scale}; expected a number above 0")
        self.register_buffer("embeddings", unit_vectors(embeddings))
        self.register_buffer("products", products.long())
        self.check()
        self.register_load_state_dict_post_hook(_check_loaded)

    @property
    def in_features(self) -> int:
        """D, numbers in a vector."""
        return self.embeddings.shape[1]

    @property
    def out_features(self) -> int:
        """K, the number of products."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.products)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of what a head returns, (N, D)."""
        if autocast_dtype(x) is not None:
            # Cosines of similar products differ in digits that 16 bits do not hold.
            with torch.autocast(x.device.type, enabled=False):
                return self._logits(x)
        return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        queries = self._unit(x)
        near = candidates(self, self.embeddings, queries)
        queries = self.scale * queries
        if near is None:
            scores = queries @ self.embeddings.T  # (N, P)
            if self._one_each:
                return scores
            of = self.products.expand_as(scores)
        else:
            scores = torch.einsum("nd,nkd->nk", queries, self.embeddings[near])
            of = self.products[near]
        least = scores.new_full((scores.shape[0], len(self.names)), -self.scale)
        return least.scatter_reduce(1, of, scores, "amax")

    def cosines(self, x: Tensor) -> Tensor:
        """Return the cosine (N, P) of each of (N, D) with every vector."""
        return self._unit(x) @ self.embeddings.T

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(x.to(self.embeddings.dtype), dim=1)

    def nearest(self, x: Tensor, products: Tensor) -> Tensor:
        """Return which vector of a product is most alike.

        Args:
            x: (N, D).
            products: the index of a product for each, (N,) int64.

        Returns:
            Indices of vectors, (N,) int64.
        """
        others = self.products != products[:, None]
        return self.cosines(x).masked_fill(others, -math.inf).argmax(dim=1)

    def counts(self) -> dict[str, int]:
        """Return the number of vectors of each product."""
        counts = torch.bincount(self.products, minlength=len(self.names)).tolist()
        return dict(zip(self.names, counts, strict=True))

    @classmethod
    def of(cls, products: Mapping[str, Enrolled], scale: float = SCALE) -> Gallery:
        """Return the gallery of products by their names; at least one.

        Raises:
            GalleryError: as the constructor does.
        """
        counts = torch.tensor([len(enrolled.embeddings) for enrolled in products.values()])
        return cls(
            torch.cat([enrolled.embeddings for enrolled in products.values()]),
            torch.arange(len(products)).repeat_interleave(counts),
            list(products),
            [photo for enrolled in products.values() for photo in enrolled.photos],
            scale,
        )

    def with_products(self, products: Mapping[str, Enrolled]) -> Gallery:
        """Return a gallery with products more, or with other vectors of some that are there.

        Raises:
            GalleryError: as the constructor does, or the vectors are not of D numbers.
        """
        for name, enrolled in products.items():
            if enrolled.embeddings.shape[1:] != self.embeddings.shape[1:]:
                raise GalleryError(
                    f"the vectors of {name!r} have shape {tuple(enrolled.embeddings.shape)}; "
                    f"expected (n, {self.in_features}), as the gallery's have"
                )
        names = tuple(dict.fromkeys((*self.names, *products)))
        new = Gallery.of(products, self.scale)
        replaced = torch.tensor([name in products for name in self.names])
        keep = (~replaced[self.products.cpu()]).nonzero().flatten().to(self.products.device)
        index = {name: number for number, name in enumerate(names)}
        numbers = torch.tensor([index[name] for name in products])
        return Gallery(
            torch.cat([self.embeddings[keep], new.embeddings.to(self.embeddings)]),
            torch.cat([self.products[keep], numbers[new.products].to(self.products)]),
            names,
            [*(self.photos[i] for i in keep.tolist()), *new.photos],
            self.scale,
        )

    def without(self, names: Sequence[str]) -> Gallery:
        """Return a gallery without some products.

        Raises:
            GalleryError: one is not in it, or none is left.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise GalleryError(
                f"the gallery has no {', '.join(map(repr, unknown))}; it has "
                f"{some_names(self.names)}"
            )
        left = [index for index, name in enumerate(self.names) if name not in names]
        if not left:
            raise GalleryError(
                "nothing would be left, and a gallery holds at least one product; delete its "
                "folder, or enroll another product first"
            )
        renumbered = self.products.new_full((len(self.names),), -1)
        renumbered[left] = torch.arange(len(left), device=renumbered.device)
        keep = (renumbered[self.products] >= 0).nonzero().flatten()
        return Gallery(
            self.embeddings[keep],
            renumbered[self.products[keep]],
            [self.names[index] for index in left],
            [self.photos[index] for index in keep.tolist()],
            self.scale,
        )

    def check(self) -> None:
        """See that vectors, products and names belong together, as after loading a state dict.

        Raises:
            GalleryError: as the constructor does.
        """
        vectors, products = self.embeddings, self.products
        if vectors.dim() != 2 or products.shape != vectors.shape[:1]:
            raise GalleryError(
                f"the vectors have shape {tuple(vectors.shape)} and their products "
                f"{tuple(products.shape)}; expected (P, D) and (P,)"
            )
        if len(self.photos) != len(products):
            raise GalleryError(
                f"{len(self.photos)} photos are named for {len(products)} vectors; expected one "
                "each"
            )
        if len(set(self.names)) != len(self.names):
            raise GalleryError(f"names come twice among {some_names(self.names)}")
        found = products.unique().tolist()
        if found != list(range(len(self.names))):
            raise GalleryError(
                f"the vectors are of the products {found[:10]}; expected at least one of each of "
                f"the {len(self.names)}, numbered from 0"
            )
        # Then a vector's cosine is its product's.
        self._one_each = torch.equal(products, torch.arange(len(self.names)).to(products))
        lengths = vectors.float().norm(dim=1)
        if not ((lengths - 1).abs() < _UNIT).all():
            raise GalleryError("a vector is not of unit length")

    def extra_repr(self) -> str:
        """Return the sizes, as print(model) shows them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"vectors={len(self)}, scale={self.scale:g}"
        )


@dataclass(frozen=True)
class Lookalike:
    """A photo that is nearly as like another product as like its own.

    Attributes:
        photo: its index among the photos asked about.
        other: the other product.
        cosine: of the photo and that product's most alike vector.
        own: the same of its own product, other photos than itself; 1 where there are none.
    """

    photo: int
    other: str
    cosine: float
    own: float


def lookalikes(gallery: Gallery, embeddings: Tensor, names: Sequence[str]) -> list[Lookalike]:
    """Return which photos another product's would be taken for, or nearly.

    Nearly: the other product is more than half as likely as the own one. A photo that is itself
    among its product's vectors is held against the product's others.

    Args:
        gallery: gallery with the products.
        embeddings: embeddings of n photos, (n, D).
        names: names of their products, n.
    """
    numbers = {name: number for number, name in enumerate(gallery.names)}
    of = torch.tensor([numbers[name] for name in names], device=gallery.products.device)
    found: list[Lookalike] = []
    for start in range(0, len(of), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        cosines = gallery.cosines(embeddings[some])
        mine = gallery.products == of[some, None]
        itself = cosines > 1 - _ROUNDING
        own = cosines.masked_fill(~mine | itself, -math.inf).amax(dim=1)
        own = own.where(own.isfinite(), torch.ones_like(own))
        best, at = cosines.masked_fill(mine, -math.inf).max(dim=1)
        near = (own - best) * gallery.scale < math.log(2)
        found += [
            Lookalike(
                start + photo,
                gallery.names[int(gallery.products[at[photo]])],
                float(best[photo]),
                float(own[photo]),
            )
            for photo in near.nonzero().flatten().tolist()
        ]
    return found


def _check_loaded(gallery: Gallery, _: object) -> None:
    gallery.check()


def unit_vectors(vectors: Tensor) -> Tensor:
    """Return vectors (P, D) as float32 of unit length.

    Raises:
        GalleryError: one is zero or not finite: it has no direction.
    """
    wide = vectors.detach().float()
    lengths = wide.norm(dim=-1, keepdim=True)
    spoilt = ~(lengths.isfinite() & (lengths > 0)).flatten()
    if spoilt.any():
        raise GalleryError(
            f"the vectors {spoilt.nonzero().flatten().tolist()[:10]} are zero or not finite, so "
            "they have no direction; look for such numbers in the photos and the network"
        )
    long = ((lengths - 1).abs() > _ROUNDING).flatten()
    if not long.any():
        return wide
    # What is of unit length already stays as it is, to the bit.
    return wide.where(~long[:, None], wide / lengths)


def some_names(names: Sequence[str]) -> str:
    """Return names for a message, not too many."""
    return ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
