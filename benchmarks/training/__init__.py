"""What a training step and an exported network cost, head by head on one backbone."""
