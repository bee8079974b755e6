"""The report as one HTML page, and the images on it."""
