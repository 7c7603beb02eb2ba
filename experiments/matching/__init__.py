"""Classify a photo by matching its local keypoints against those of every training photo."""

from experiments.matching.classifier import KeypointClassifier
from experiments.matching.evaluate import Predictions, evaluate_matching
from experiments.matching.keypoints import Detector, Keypoints
from experiments.matching.matcher import count_inliers, match
from experiments.matching.sift import SiftDetector

__all__ = [
    "Detector",
    "KeypointClassifier",
    "Keypoints",
    "Predictions",
    "SiftDetector",
    "count_inliers",
    "evaluate_matching",
    "match",
]
