"""LCA in plain torch: a torchvision backbone, a folder of photos per product, a training loop.

    python examples/plain_torch.py PHOTOS

PHOTOS has a folder per product.
"""

from argparse import ArgumentParser

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
from torchvision.transforms import v2

from lca_fused import MaxEntropyLoss, attach_lca

parser = ArgumentParser()
parser.add_argument("photos")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--random", action="store_true", help="fetch no pretrained weights")
asked = parser.parse_args()

weights = None if asked.random else MobileNet_V2_Weights.IMAGENET1K_V1
transform = v2.Compose(
    [
        v2.RandomResizedCrop(224, scale=(0.4, 1.0)),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)
data = ImageFolder(asked.photos, transform)
model = attach_lca(mobilenet_v2(weights=weights), num_classes=len(data.classes))
model = model.to(memory_format=torch.channels_last)  # what the kernels read fastest
loss_of = MaxEntropyLoss(gamma=0.6)
head = [*model.pool.parameters(), *model.classifier.parameters()]
optimizer = torch.optim.SGD(
    [{"params": model.backbone.parameters(), "lr": 0.005}, {"params": head, "lr": 0.02}],
    momentum=0.9,
)

for epoch in range(asked.epochs):
    model.train()
    model.freeze_batch_norm()  # few photos would spoil the backbone's statistics
    for images, labels in DataLoader(data, batch_size=16, shuffle=True):
        loss = loss_of(model(images.to(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
