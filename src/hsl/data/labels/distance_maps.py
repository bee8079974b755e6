"""Distance maps of instance maps: what a head learns so that objects that touch can be told apart."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Distances = npt.NDArray[np.float32]


def distance_map(instances: npt.NDArray[np.integer[Any]]) -> Distances:
    """How deep each pixel lies in its object: 1 at the deepest, 0 outside.

    ``d_i / max_j d_j`` over the pixels of one object, with ``d_i`` the Euclidean distance to the centre of the nearest
    pixel that is not of this object. A neighbour that touches is not of it, nor is what lies beyond the border of the
    picture, so the map is low along every border. Source of the idea: Naylor et al. 2019, "Segmentation of Nuclei in
    Histopathology Images by Deep Regression of the Distance Map", there not divided.

    Args:
        instances: ``(H, W)``, at least 0; 0 is no object. Ids need not be consecutive, nor objects connected.

    Returns:
        ``float32 (H, W)`` in [0, 1].

    Raises:
        ValueError: it is no integer image, it is empty, or an id is negative.

    Example:
        >>> distance_map(np.array([[1, 1, 1, 0, 2]] * 3)).tolist()[1]
        [0.5, 1.0, 0.5, 0.0, 1.0]
    """
    if instances.ndim != 2 or instances.dtype.kind not in "iu" or not instances.size or instances.min() < 0:
        raise ValueError(
            "`instances` should be an integer image (H, W) of ids from 0, not empty. Found "
            f"`instances.shape = {instances.shape}`, `instances.dtype = {instances.dtype}`."
        )
    # Some readers give ids such as 2**31, and find_objects makes a list as long as the largest.
    found, numbers = np.unique(instances, return_inverse=True)
    numbers = numbers.reshape(instances.shape) + (0 not in found)
    distances = np.zeros(instances.shape, dtype=np.float32)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        inside = numbers[box] == number
        depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        distances[box][inside] = depth[inside] / depth.max()
    return distances
