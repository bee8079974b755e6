"""The checks of a composed config, made before anything heavy is imported."""
