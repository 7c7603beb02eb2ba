"""What a classifier is, beside its weights: backbone, head, classes, preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from lca_fused.backbones import Backbone, find_backbone
from lca_fused.decision import Decision
from lca_fused.feature_map import TimmMap
from lca_fused.heads import HEADS, head_name
from lca_fused.layer import LCA
from lca_fused.preprocessing import Preprocessing

if TYPE_CHECKING:
    from lca_fused.classifier import Classifier

VERSION = 1
"""Of the plain values that `Description.to_dict` returns."""


@dataclass(frozen=True)
class Description:
    """What a classifier is, beside its weights.

    Attributes:
        classes: names of the K classes, in the order of the logits.
        backbone: its name as `find_backbone` takes it, with a builder's arguments.
        preprocessing: the preprocessing that photos go through.
        head: name in `lca_fused.heads.HEADS` and the arguments of its layer, plain values.
        dropout: the dropout probability between head and classifier.
        licence: the licence of the pretrained weights; empty where their source gives none.
        training: how it was trained, plain values.
        accuracy: the accuracies measured, 0..1, by what they were measured on, plain values.
        decision: how sure it is, and when it says "unknown".
    """

    classes: tuple[str, ...]
    backbone: str
    preprocessing: Preprocessing
    head: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    licence: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    decision: Decision = field(default_factory=Decision)

    def __post_init__(self) -> None:
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes are {self.classes!r}; expected the name of each class")

    def build(self) -> Classifier:
        """Return the untrained classifier.

        Raises:
            ValueError: its backbone or head is not known here or cannot be built as described.
            TypeError: its backbone has no map.
        """
        from lca_fused.classifier import attach_head

        network = find_backbone(self.backbone, self.arguments).build()
        classifier = attach_head(network, _make(self.head), len(self.classes), dropout=self.dropout)
        classifier.description = self
        return classifier

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as a config.json holds them."""
        return {
            "format": VERSION,
            "backbone": {"name": self.backbone, "arguments": dict(self.arguments)},
            "head": dict(self.head),
            "dropout": self.dropout,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "licence": self.licence,
            "accuracy": dict(self.accuracy),
            "training": dict(self.training),
            "decision": self.decision.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """Return what `to_dict` was called on.

        Raises:
            ValueError: a value is missing, of another type or out of its range.
        """
        version = values.get("format")
        if version != VERSION:
            raise ValueError(
                f"its format is {version!r}; expected {VERSION}: use the version of lca_fused that "
                "wrote it, or a newer one"
            )
        kinds = {"backbone": dict, "head": dict, "classes": list, "preprocessing": dict}
        for name, kind in kinds.items():
            if not isinstance(values.get(name), kind):
                raise ValueError(f"its {name} is {values.get(name)!r}; expected a {kind.__name__}")
        return cls(
            classes=tuple(values["classes"]),
            backbone=str(values["backbone"].get("name")),
            arguments=values["backbone"].get("arguments", {}),
            preprocessing=Preprocessing.from_dict(values["preprocessing"]),
            head=values["head"],
            dropout=values.get("dropout", 0.0),
            licence=values.get("licence", ""),
            training=values.get("training", {}),
            accuracy=values.get("accuracy", {}),
            decision=Decision.from_dict(values.get("decision", {})),
        )


def describe(
    classifier: Classifier,
    classes: Sequence[str],
    *,
    backbone: str | Backbone | None = None,
    preprocessing: Preprocessing | None = None,
    training: Mapping[str, Any] | None = None,
    accuracy: Mapping[str, Any] | None = None,
) -> Description:
    """Say what a classifier is, for `predict` and `save_pretrained`, and return that.

    Args:
        classifier: as `attach_lca` returns it.
        classes: names of its K classes, in the order of the logits.
        backbone: the backbone's name, as `find_backbone` takes it; None for a timm
            model, which knows it.
        preprocessing: what photos go through; None for that of the backbone's pretrained weights.
        training: how it was trained, plain values.
        accuracy: the accuracies measured, plain values.

    Raises:
        ValueError: the number of classes is not K, the backbone's name must be given, or the head
            is none of `lca_fused.heads.HEADS`.
    """
    if len(classes) != classifier.num_classes:
        raise ValueError(
            f"{len(classes)} classes are named; expected the {classifier.num_classes} of the "
            "classifier"
        )
    if backbone is None:
        backbone = _timm_backbone(classifier.backbone)
    found = find_backbone(backbone) if isinstance(backbone, str) else backbone
    description = Description(
        classes=tuple(classes),
        backbone=found.name,
        arguments=found.arguments,
        preprocessing=preprocessing or found.preprocessing,
        head=_head_of(classifier.pool),
        dropout=classifier.dropout.p,
        licence=found.licence,
        training=training or {},
        accuracy=accuracy or {},
    )
    classifier.description = description
    return description


def described(classifier: Classifier) -> Description:
    """Return a classifier's description.

    Raises:
        ValueError: it has none.
    """
    if classifier.description is None:
        raise ValueError(
            "the classifier does not know its classes and preprocessing; call "
            'classifier.describe(CLASSES, backbone="torchvision:NAME") once (timm models need no '
            "backbone)"
        )
    return classifier.description


def _timm_backbone(backbone: nn.Module) -> Backbone:
    config = getattr(getattr(backbone, "model", None), "pretrained_cfg", None)
    if not isinstance(backbone, TimmMap) or not isinstance(config, dict):
        raise ValueError(
            'backbone is not given, and the network is not of timm; name it, as "torchvision:NAME" '
            "(or leave predict and save_pretrained, and keep its state_dict)"
        )
    tagged = ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    built = getattr(backbone.model, "_model_args", {})
    arguments = {name: value for name, value in built.items() if name != "num_classes"}
    size = arguments.get("img_size")
    return find_backbone(f"timm:{tagged}", arguments).at(size if isinstance(size, int) else None)


def _head_of(pool: nn.Module) -> dict[str, Any]:
    name = head_name(pool)
    if name is None:
        raise ValueError(
            f"the head is a {type(pool).__name__}; expected one of {', '.join(HEADS)}: only those "
            "can be built again from a description"
        )
    if not isinstance(pool, LCA):
        return {"name": name}
    sizes = pool.kernel_sizes
    return {
        "name": name,
        "out_features": pool.out_features,
        "bias": pool.bias is not None,
        "kernel_sizes": None if sizes is None else [list(size) for size in sizes],
    }


def _make(head: Mapping[str, Any]) -> Any:
    """Return what makes the head described from C."""
    arguments = dict(head)
    name = arguments.pop("name", None)
    if name not in HEADS:
        raise ValueError(f"its head is {name!r}; expected one of {', '.join(HEADS)}")
    if arguments.get("kernel_sizes") is not None:
        arguments["kernel_sizes"] = [tuple(size) for size in arguments["kernel_sizes"]]

    def make(channels: int) -> nn.Module:
        try:
            return HEADS[name](channels, **arguments)  # type: ignore[call-arg]
        except TypeError as error:
            raise ValueError(f"its head {name} has arguments {arguments}: {error}") from error

    return make
