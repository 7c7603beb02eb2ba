"""The classifier of this library: a backbone, a pooling head (LCA) and a linear layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lca_fused.decision import Decision
from lca_fused.feature_map import drop_what_follows, feature_map, inside, probe
from lca_fused.heads import HEADS
from lca_fused.integers import integer
from lca_fused.layer import LCA
from lca_fused.wrapping import (
    NAMING,
    check_hooks,
    move_hooks,
    same_numbers,
    unchanged_if_it_fails,
)

if TYPE_CHECKING:
    from pathlib import Path

    from lca_fused.description import Description
    from lca_fused.gallery import Gallery
    from lca_fused.prediction import Photo, Prediction


class Classifier(nn.Module):
    """A backbone, a pooling head and a linear classifier; `attach_lca` makes one.

    arXiv 2001.03992, section 3.2, where the head is LCA. The methods are those of a timm model,
    but the pooling is the head's: no method takes it away. What else is asked of it the model
    inside answers, such as `pretrained_cfg`, `set_grad_checkpointing` or attributes of your own;
    `group_matcher` and `no_weight_decay` speak of the names that parameters have here.

    Args:
        backbone: (N, channels, height, width) images -> (N, C, H, W) feature maps.
        pool: (N, C, H, W) -> (N, D), with its D as `out_features`: LCA, or one of
            `lca_fused.heads.HEADS`.
        num_classes: K, the number of classes; 0 for no classifier: the head's output is returned.
        dropout: the dropout probability between head and classifier.

    Shape:
        (N, channels, height, width) -> (N, K), or (N, D) without a classifier.

    Attributes:
        backbone: as given.
        pool: as given. Its parameters' names begin with "lca." where it is LCA, else with "pool.".
        classifier: nn.Linear(D, K), on the device and in the dtype of the network; nn.Identity for
            K = 0; or the Gallery that was set.
        num_classes: K, the number of classes.
        num_features: C, channels of the feature map.
        head_hidden_size: D, what the classifier takes.
        description: what its photos go through, the names of its classes and where its backbone
            is from; what `predict` and `save_pretrained` need. None until it is set.

    Raises:
        ValueError: num_classes below 0 or dropout outside 0..1; at the call as `LCA` does.
        TypeError: num_classes is not an integer, or the head has no out_features.
    """

    def __init__(
        self, backbone: nn.Module, pool: nn.Module, num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check_head(num_classes, dropout)
        if not isinstance(getattr(pool, "out_features", None), int):
            raise TypeError(
                f"pool is a {type(pool).__name__} without out_features; expected lca_fused.LCA, "
                f"one of {', '.join(HEADS)}, or a module that says how many features it returns"
            )
        self.backbone = backbone
        self._head = "lca" if isinstance(pool, LCA) else "pool"
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.description: Description | None = None
        self.reset_classifier(num_classes)

    def __getattr__(self, name: str) -> Any:
        """Ask the model inside for what this one has not."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            model, prefix = inside(vars(self).get("_modules", {}).get("backbone"))
            if name.startswith("_") or not hasattr(model, name):
                raise
        value = getattr(model, name)
        return partial(NAMING[name], value, prefix) if name in NAMING else value

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; nn.Module's own way would pass over the property `pool`."""
        if name == "pool":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def pool(self) -> Any:
        """The head."""
        return self._modules[self._head]

    @pool.setter
    def pool(self, head: nn.Module) -> None:
        self._modules[self._head] = head

    @property
    def num_features(self) -> int:
        """C, channels of the feature map."""
        return getattr(self.pool, "in_features", self.pool.out_features)

    @property
    def head_hidden_size(self) -> int:
        """D, what the classifier takes."""
        return self.pool.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of a batch of images."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the feature map (N, C, H, W) that the head pools."""
        return self.backbone(images)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits (N, K) of a feature map, or what the classifier sees of it (N, D)."""
        x = self.dropout(self.pool(x))
        return x if pre_logits else self.classifier(x)

    def get_classifier(self) -> nn.Module:
        """Return what is behind the head: the linear classifier, or a gallery."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear classifier by a new one; backbone and head stay.

        Args:
            num_classes: K, the number of classes; 0 for no classifier.
            global_pool: an argument of timm's signature; must be None.

        Raises:
            ValueError: num_classes is below 0, or a global_pool is asked for.
            TypeError: num_classes is not an integer.
        """
        if global_pool is not None:
            raise ValueError(
                f"global_pool is {global_pool!r}, but the pooling of this model is "
                f"{type(self.pool).__name__}; leave it out to replace the classifier alone, or "
                "take `.backbone` to pool another way"
            )
        num_classes = _check_head(num_classes, 0.0)
        everything = (*self.pool.parameters(), *self.backbone.parameters())
        like = next((p for p in everything if p.is_floating_point()), torch.empty(0))
        self.classifier: nn.Module = (
            nn.Linear(self.pool.out_features, num_classes, device=like.device, dtype=like.dtype)
            if num_classes
            else nn.Identity()
        ).train(self.training)
        self.num_classes = num_classes
        self.description = None

    def set_gallery(self, gallery: Gallery) -> None:
        """Put a gallery in the classifier's place: its products are the classes from now on.

        Backbone and head stay, and so does the description, with the names of the products; the
        accuracies in it were of other classes, and go. How it decides stays where a gallery of the
        same scale was there, without the precision, which was proven on other products.

        Raises:
            ValueError: the gallery's vectors are not of D numbers.
        """
        if gallery.in_features != self.head_hidden_size:
            raise ValueError(
                f"the gallery's vectors have {gallery.in_features} numbers; expected "
                f"{self.head_hidden_size}, as {type(self.pool).__name__} returns: they are of "
                "another model"
            )
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        before = getattr(self.classifier, "scale", None)
        self.classifier = gallery.to(device).train(self.training)
        self.num_classes = gallery.out_features
        if self.description is not None:
            same = before == gallery.scale
            self.description = replace(
                self.description,
                classes=gallery.names,
                accuracy={},
                decision=self.description.decision.unproven() if same else Decision(),
            )

    def freeze_batch_norm(self) -> None:
        """Put the backbone's BatchNorm layers in evaluation mode: their statistics stay."""
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def describe(self, classes: Sequence[str], **more: Any) -> Description:
        """Name the classes and the backbone: see `lca_fused.description.describe`."""
        from lca_fused.description import describe

        return describe(self, classes, **more)

    def predict(
        self, photos: Photo | Sequence[Photo], *, top_k: int = 5, batch_size: int = 32
    ) -> Prediction | list[Prediction]:
        """Say which products photos show: see `lca_fused.prediction.predict`."""
        from lca_fused.prediction import predict

        return predict(self, photos, top_k=top_k, batch_size=batch_size)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors and config.json: see `lca_fused.pretrained.save_pretrained`."""
        from lca_fused.pretrained import save_pretrained

        save_pretrained(self, folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload to the Hugging Face Hub: see `lca_fused.pretrained.push_to_hub`."""
        from lca_fused.pretrained import push_to_hub

        return push_to_hub(self, repo_id, **options)


def attach_lca(
    model: nn.Module,
    num_classes: int,
    *,
    out_features: int | None = None,
    kernel_sizes: Iterable[tuple[int, int]] | None = None,
    backend: str = "auto",
    bias: bool = True,
    dropout: float = 0.0,
) -> Classifier:
    """Put LCA and a new linear classifier on the backbone of a classifier.

    arXiv 2001.03992, section 3.2: LCA takes the place of global pooling; see `attach_head` for
    what becomes of the rest of `model`, and `feature_map` for which models have a map.

    Args:
        model: a torchvision classifier, a timm classifier whose features can be a map, or any
            module that returns a feature map (N, C, H, W).
        num_classes: K, the number of classes; 0 for no classifier.
        out_features: D of LCA; None means D = C, the channels of the map.
        kernel_sizes: as `LCA` takes them.
        backend: as `LCA` takes it.
        bias: whether LCA's linear layer has a bias.
        dropout: the dropout probability between LCA and the classifier.

    Returns:
        The classifier, on the device and in the dtype of `model`.

    Raises:
        ValueError: as `attach_head` and `LCA` do.
        TypeError: as `attach_head` does.
    """
    sizes = None if kernel_sizes is None else list(kernel_sizes)
    lca = partial(LCA, out_features=out_features, bias=bias, kernel_sizes=sizes, backend=backend)
    return attach_head(model, lca, num_classes, dropout=dropout)


def attach_head(
    model: nn.Module,
    head: str | Callable[[int], nn.Module],
    num_classes: int,
    *,
    dropout: float = 0.0,
) -> Classifier:
    """Put a pooling head and a new linear classifier on the backbone of a classifier.

    What follows the pooling in `model` is left out (`feature_map` says what is kept). Hooks of
    `model` itself act on the result, and its attributes are found there; hooks of layers go on
    with the layers. A call that fails leaves all of `model` as it was.

    The parameters are those of `model`, not copies, under their own names: "backbone.layer4..." of
    a torchvision model, "backbone.model.layer4..." of a timm model. A timm model gives its head
    away; go on with the result.

    Args:
        model: as `feature_map` takes it.
        head: a name in `lca_fused.heads.HEADS`, or a function of C that returns a head.
        num_classes: K, the number of classes; 0 for no classifier.
        dropout: the dropout probability between head and classifier.

    Returns:
        The classifier, on the device and in the dtype of `model`.

    Raises:
        ValueError: there is no such head, the model has an LCA layer already, a layer that is
            left out has hooks, or as `feature_map` and `Classifier` do.
        TypeError: as `feature_map` and `Classifier` do.
    """
    num_classes = _check_head(num_classes, dropout)
    make = _head(head)
    if not isinstance(model, nn.Module):
        feature_map(model)  # says what is expected
    _check_has_no_lca(model)
    before = set(model.modules())
    with unchanged_if_it_fails(model):
        backbone, image, found = probe(model)
        if backbone is not model:
            with same_numbers(model):
                check_hooks(model, backbone, image)
        pool = make(found.shape[1]).to(found.device, image.dtype)
        classifier = Classifier(backbone, pool, num_classes, dropout)
        drop_what_follows(backbone, image)
        for module in set(classifier.modules()) - before:
            module.training = model.training
        if backbone is not model:
            move_hooks(model, backbone, classifier)
    return classifier


def _head(head: str | Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    if not isinstance(head, str):
        return head
    if head not in HEADS:
        raise ValueError(f"head is {head!r}; expected one of {', '.join(HEADS)}")
    return HEADS[head]


def _check_has_no_lca(model: nn.Module) -> None:
    if any(isinstance(module, LCA | Classifier) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has an LCA layer already; to change the classes of a "
            "Classifier call its reset_classifier"
        )


def _check_head(num_classes: int, dropout: float) -> int:
    num_classes = integer("num_classes", num_classes)
    if num_classes < 0:
        raise ValueError(f"num_classes is {num_classes}; expected at least 0")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}; expected 0 to 1")
    return num_classes
