"""Programs that nobody imports. Optional dependencies are imported on use."""
