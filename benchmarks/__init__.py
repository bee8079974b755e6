"""Speed of hsl beside named peers, as ratios measured in one run."""
