"""Classify a photo by matching its local keypoints against those of every training photo."""
