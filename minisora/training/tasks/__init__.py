"""What the loop trains: each task is data, model, loss and validation."""
