"""Classify a photo by matching its local keypoints against those of every training photo."""

from experiments.matching.classifier import KeypointClassifier
from experiments.matching.detectors import DETECTORS, make_detector
from experiments.matching.evaluate import Predictions, discard_scores, evaluate_matching
from experiments.matching.keypoints import Detector, Keypoints
from experiments.matching.matcher import count_inliers, match
from experiments.matching.sift import SiftDetector
from experiments.matching.superpoint import SuperPointDetector

__all__ = [
    "DETECTORS",
    "Detector",
    "KeypointClassifier",
    "Keypoints",
    "Predictions",
    "SiftDetector",
    "SuperPointDetector",
    "count_inliers",
    "discard_scores",
    "evaluate_matching",
    "make_detector",
    "match",
]
