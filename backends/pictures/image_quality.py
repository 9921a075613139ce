"""Image quality without a reference picture."""

from __future__ import annotations

import io
import pickle
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class ImageQuality(Protocol):
    """Rates one picture."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def quality(self, image: npt.NDArray[np.uint8]) -> float | None:
        """BRISQUE of uint8 RGB [H, W, 3]: 0-100, lower is better; None for a picture without texture."""
        ...


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, lists and dicts; refuses everything that names code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}: only plain data is read")


# How NumPy adds up depends on how its memory lies, in the eleventh decimal: the same picture has one number.
DECIMALS = 6


def _contrast_normalised(
    model: Any, image: npt.NDArray[np.float64], size: int, sigma: float
) -> npt.NDArray[np.float64]:
    """Local mean taken out, local deviation divided out, as the package does it.

    With OpenCV's filter: the same numbers as scipy's convolve2d to 1e-15, several times faster.
    """
    import cv2

    kernel = model.gaussian_kernel2d(size, sigma=sigma)
    mean = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    square = cv2.filter2D(image**2, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    return (image - mean) / (np.sqrt(np.abs(mean**2 - square)) + 1 / 255)


def _asymmetric_fit(values: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Shape, mean and the two deviations of an asymmetric generalised Gaussian, as the package fits it.

    The package's own takes a copy of the values below and above zero for each of several sums.
    """
    from scipy.optimize import root
    from scipy.special import gamma

    below, above = np.minimum(values, 0).ravel(), np.maximum(values, 0).ravel()
    num_below = int(np.count_nonzero(below))
    below_sum, above_sum = float(below @ below), float(above @ above)
    left, right = (
        np.sqrt(np.divide(total, count))  # NaN without values on one side
        for total, count in ((below_sum, num_below), (above_sum, below.size - num_below))
    )
    ratio = left / right
    mean_size = (above.sum() - below.sum()) / below.size
    wanted = mean_size**2 / ((below_sum + above_sum) / below.size)
    wanted *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = float(root(lambda a: gamma(2 / a) ** 2 / (gamma(1 / a) * gamma(3 / a)) - wanted, [0.2]).x[0])
    mean = (right - left) * np.sqrt(gamma(1 / shape) / gamma(3 / shape)) * gamma(2 / shape) / gamma(1 / shape)
    return shape, float(mean), float(left), float(right)


# The 18 features of one scale when the picture is mirrored: the two diagonals change places.
_MIRRORED = [*range(10), *range(14, 18), *range(10, 14)]


class Brisque:
    """BRISQUE of the `brisque` package (Mittal et al. 2012), one thread.

    The mean of a picture and its mirror image: one is as good as the other, but the support vectors rate them
    up to 22 apart.

    The package's own `score` computes each filter three times and makes ragged arrays that numpy 2
    refuses; the features here are its own, taken one scale at a time and flattened.
    """

    def __init__(self) -> None:
        self._model: Any = None

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"brisque {version('brisque')} both sides {DECIMALS} decimals"

    def setup(self) -> None:
        """Load the support vectors and the feature ranges out of the package."""
        if self._model is not None:
            return
        import cv2
        from brisque import BRISQUE
        from libsvm import svmutil

        cv2.setNumThreads(1)
        folder = files("brisque") / "models"
        model = BRISQUE.__new__(BRISQUE)  # its __init__ would unpickle without restraint
        model.model = svmutil.svm_load_model(str(folder / "svm.txt"))
        ranges = (folder / "normalize.pickle").read_bytes()
        model.scale_params = _PlainUnpickler(io.BytesIO(ranges)).load()
        model.calculate_mscn_coefficients = partial(_contrast_normalised, model)
        model.asymmetric_generalized_gaussian_fit = _asymmetric_fit
        self._model = model

    def quality(self, image: npt.NDArray[np.uint8]) -> float | None:
        """BRISQUE of uint8 RGB [H, W, 3]: 0-100, lower is better; None for a picture without texture."""
        import cv2
        from skimage.color import rgb2gray

        grey = rgb2gray(image)
        if min(grey.shape) < 32 or float(grey.std()) * 255 < 1.0:
            return None
        half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
        features: list[float] = []
        for picture in (grey, half):
            ragged = self._model.calculate_brisque_features(picture, kernel_size=7, sigma=7 / 6)
            features += [float(np.asarray(value, float).ravel()[0]) for value in ragged]
        if not np.isfinite(features).all():
            return None
        mirrored = [features[18 * scale + place] for scale in range(2) for place in _MIRRORED]
        both = [self._model.calculate_image_quality_score(values) for values in (features, mirrored)]
        return round(float(np.mean(np.clip(both, 0.0, 100.0))), DECIMALS)
