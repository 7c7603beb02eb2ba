"""How well a model does on some photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.training.device import Compute
from experiments.training.memory import Room, in_batches


@dataclass(frozen=True)
class Score:
    """How well a model does on some photos.

    Attributes:
        accuracy: share of photos whose likeliest class is right, in 0..1.
        loss: mean negative log-likelihood, in nats.
        top5: class indices by falling probability, (photos, up to 5) int64.
    """

    accuracy: float
    loss: float
    top5: Tensor


def score(
    model: nn.Module, batches: DataLoader[Any], compute: Compute, room: Room | None = None
) -> Score:
    """Score a model, on the device already, on batches of images and labels.

    Args:
        model: (N, 3, S, S) -> (N, K) logits, or what takes other inputs.
        batches: photos and labels.
        compute: device and precision.
        room: how many photos fit at a time, where that is known from an earlier call.

    Raises:
        NoRoomError: memory does not hold the computation of one photo.
    """
    room = room or Room(compute.photos_at_once, "scoring")
    model.eval()
    correct, loss, count, top5 = 0, 0.0, 0, []
    with torch.inference_mode():
        for batch, batch_labels in batches:
            images, labels = to_device(batch, batch_labels, compute.device)
            with compute.autocast():
                logits = in_batches(model, images, room)
            log_p = logits.float().log_softmax(dim=1)
            likeliest = log_p.topk(min(5, log_p.shape[1])).indices
            # Not argmax: 16-bit logits tie, and the two may choose differently among equals.
            correct += int((likeliest[:, 0] == labels).sum())
            loss += float(nn.functional.nll_loss(log_p, labels, reduction="sum"))
            count += len(labels)
            top5.append(likeliest.cpu())
    return Score(correct / count, loss / count, torch.cat(top5))


def to_device(images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return both on `device`, the images in channels-last order."""
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return images, labels.to(device, non_blocking=True)
