"""LCA in Lightning: a LightningModule around a torchvision backbone with the paper's head.

    python examples/lightning_training.py PHOTOS

PHOTOS has a folder per product. Needs `pip install lightning`.
"""

from argparse import ArgumentParser

import lightning
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from lca_fused import MaxEntropyLoss, attach_lca


class ProductClassifier(lightning.LightningModule):
    """MobileNetV2 with LCA, trained with the paper's loss."""

    def __init__(self, num_classes, weights):
        super().__init__()
        self.model = attach_lca(mobilenet_v2(weights=weights), num_classes=num_classes)
        self.loss_of = MaxEntropyLoss(gamma=0.6)

    def on_train_epoch_start(self):
        self.model.freeze_batch_norm()  # few photos would spoil the backbone's statistics

    def training_step(self, batch, _):
        images, labels = batch
        loss = self.loss_of(self.model(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self):
        print(f"epoch {self.current_epoch + 1}: loss {self.trainer.callback_metrics['loss']:.3f}")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-4)


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--random", action="store_true", help="fetch no pretrained weights")
    asked = parser.parse_args()
    pretrained = MobileNet_V2_Weights.IMAGENET1K_V1
    data = ImageFolder(asked.photos, pretrained.transforms())
    product_classifier = ProductClassifier(
        len(data.classes), weights=None if asked.random else pretrained
    )
    trainer = lightning.Trainer(
        max_epochs=asked.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(product_classifier, DataLoader(data, batch_size=16, shuffle=True))
