"""Training: stages, objectives, freezing, saves, and the loop."""
