"""Scripts that train the bundled backbones, and the measurements on their cards."""
