"""Finetuning: the recipe, its steps, several processes, and what a step costs."""
