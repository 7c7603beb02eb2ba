"""LCA in timm: its models, loaders, optimisers and schedules, with the paper's head.

    python examples/timm_training.py PHOTOS

PHOTOS has a folder per product; --model is any timm model whose features are a map.
"""

from argparse import ArgumentParser

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_model_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter

from lca_fused import attach_lca

parser = ArgumentParser()
parser.add_argument("photos")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--model", default="tf_efficientnet_lite0")
parser.add_argument("--random", action="store_true", help="fetch no pretrained weights")
asked = parser.parse_args()

network = timm.create_model(asked.model, pretrained=not asked.random)
config = resolve_model_data_config(network)
data = create_dataset("", root=asked.photos)
loader = create_loader(
    data,
    input_size=config["input_size"],
    batch_size=16,
    is_training=True,
    mean=config["mean"],
    std=config["std"],
    num_workers=0,
    use_prefetcher=False,
)
model = attach_lca(network, num_classes=len(data.reader.class_to_idx))
optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7)
scheduler = CosineLRScheduler(optimizer, t_initial=asked.epochs)

for epoch in range(asked.epochs):
    losses = AverageMeter()
    for images, labels in loader:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(labels))
    scheduler.step(epoch + 1)
    print(f"epoch {epoch + 1}: loss {losses.avg:.3f}")
