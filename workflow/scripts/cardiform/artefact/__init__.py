"""What a training leaves: model.pt, and how torch files are written and read safely."""
