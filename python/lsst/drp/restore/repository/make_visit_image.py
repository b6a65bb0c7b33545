# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images and PSFs made from arrays."""

from __future__ import annotations

__all__ = ("kernel_psf", "make_visit_image", "polynomial_terms")

import itertools
import math
from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astro_metadata_translator import ObservationInfo
from astropy.time import Time
from astropy.wcs import WCS

from lsst.images import (
    Box,
    DetectorFrame,
    Image,
    Mask,
    MaskSchema,
    SkyProjection,
    VisitImage,
    get_legacy_visit_image_mask_planes,
)
from lsst.images.cameras import (
    CameraFrameSetSerializationModel,
    Detector,
    DetectorAttributes,
    DetectorType,
    Orientation,
)
from lsst.images.psfs import PiffWrapper, PointSpreadFunction
from lsst.images.serialization import DetachedArchive

from ..warping.projections import pixel_scale, sky_projection_from_wcs
from ..warping.visit_input import NOISE_CORRELATION


def make_visit_image(
    *,
    image: np.ndarray,
    variance: np.ndarray,
    mask: Mapping[str, np.ndarray],
    wcs: WCS | SkyProjection[DetectorFrame],
    psf: PointSpreadFunction,
    instrument: str,
    visit: int,
    detector: int,
    physical_filter: str,
    band: str,
    begin: Time,
    exposure_time: float,
    unit: u.UnitBase = u.nJy,
    detector_name: str | None = None,
    noise_correlation: float = 1.0,
) -> VisitImage:
    """Make a visit image from arrays.

    Parameters
    ----------
    image : `numpy.ndarray`
        Sky-subtracted pixels, shape ``(height, width)``; the first one becomes
        pixel (0, 0).
    variance : `numpy.ndarray`
        Variance, unit squared, same shape.
    mask : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        Pixels to flag by mask plane, `bool`, same shape.  The planes are those
        of Rubin's visit images, for example ``BAD`` or ``COSMIC_RAY``.
    wcs : `astropy.wcs.WCS` or `lsst.images.SkyProjection`
        Maps pixels to the sky; any celestial FITS WCS, TPV and SIP included.
    psf : `lsst.images.psfs.PointSpreadFunction`
        PSF model.  Gaussian and Piff models can be stored.
    instrument : `str`
        Name of the instrument.
    visit, detector : `int`
        IDs of the visit and detector.
    physical_filter, band : `str`
        Names of the filter and of its band.
    begin : `astropy.time.Time`
        Start of the exposure.
    exposure_time : `float`
        Exposure time, s.
    unit : `astropy.units.UnitBase`, optional
        Unit of ``image``.
    detector_name : `str`, optional
        Full name of the detector; default is its ID.
    noise_correlation : `float`, optional
        Power of the noise at low spatial frequencies in units of the variance;
        1 for independent pixels.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The image.  The focal plane of its detector is the detector's own pixel
        grid.

    Raises
    ------
    ValueError
        Raised if a mask plane is unknown, shapes differ, or the WCS cannot be
        represented.
    """
    if variance.shape != image.shape or any(plane.shape != image.shape for plane in mask.values()):
        raise ValueError("Image, variance and mask planes differ in shape.")
    bbox = Box.from_shape(image.shape)
    if isinstance(wcs, WCS):
        frame = DetectorFrame(instrument=instrument, visit=visit, detector=detector, bbox=bbox)
        projection = sky_projection_from_wcs(wcs, frame)
    else:
        projection = wcs
    schema = MaskSchema(get_legacy_visit_image_mask_planes().values())
    if unknown := mask.keys() - set(schema.names):
        raise ValueError(f"No mask planes {sorted(unknown)}; there are {sorted(schema.names)}.")
    planes = Mask(0, schema=schema, bbox=bbox)
    for name, plane in mask.items():
        planes.set(name, plane)
    detector_name = detector_name if detector_name is not None else str(detector)
    return VisitImage(
        Image(image.astype(np.float32), bbox=bbox, unit=unit),
        mask=planes,
        variance=Image(variance.astype(np.float32), bbox=bbox, unit=unit**2),
        sky_projection=projection,
        psf=psf,
        detector=_nominal_detector(instrument, visit, detector, detector_name, projection, bbox),
        band=band,
        obs_info=ObservationInfo(
            instrument=instrument,
            physical_filter=physical_filter,
            visit_id=visit,
            exposure_id=visit,
            detector_num=detector,
            detector_name=detector_name,
            detector_unique_name=detector_name,
            datetime_begin=begin.tai,
            datetime_end=begin.tai + exposure_time * u.s,
            exposure_time=exposure_time * u.s,
            observation_type="science",
        ),
        metadata={NOISE_CORRELATION: noise_correlation},
    )


def _nominal_detector(
    instrument: str,
    visit: int,
    detector: int,
    name: str,
    projection: SkyProjection[DetectorFrame],
    bbox: Box,
) -> Detector:
    """Return the detector of a camera of unknown geometry: focal plane
    coordinates are pixels from the detector's center.
    """
    from starlink import Ast

    x, y = bbox.x.center, bbox.y.center
    scale = (pixel_scale(projection, bbox) * u.arcsec).to_value(u.rad)
    frames = Ast.FrameSet(Ast.Frame(2, "Ident=FOCAL_PLANE,Unit(1)=pixel,Unit(2)=pixel"))
    frames.addframe(1, Ast.ZoomMap(2, scale), Ast.Frame(2, "Ident=FIELD_ANGLE,Unit(1)=rad,Unit(2)=rad"))
    limits = ",".join(
        f"Bottom({axis})={interval.start},Top({axis})={interval.stop},Unit({axis})=pixel"
        for axis, interval in ((1, bbox.x), (2, bbox.y))
    )
    frames.addframe(1, Ast.ShiftMap([x, y]), Ast.Frame(2, f"Ident=DETECTOR_{detector:03d},{limits}"))
    text = _AstText()
    Ast.Channel(None, text, options="Comment=0").write(frames)
    camera = CameraFrameSetSerializationModel(instrument=instrument, ast="\n".join(text.lines))
    attributes = DetectorAttributes(
        name=name,
        id=detector,
        type=DetectorType.SCIENCE,
        serial=name,
        bbox=bbox,
        orientation=Orientation(
            focal_plane_x=0.0, focal_plane_y=0.0, focal_plane_z=0.0, pixel_reference_x=x, pixel_reference_y=y
        ),
        pixel_size=1.0,
        physical_type="CCD",
    )
    return Detector(attributes, amplifiers=[], frames=camera.deserialize(DetachedArchive()), visit=visit)


class _AstText:
    """A sink for `starlink.Ast.Channel` that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def astsink(self, line: str) -> None:
        """Keep one line of an AST object's text."""
        self.lines.append(line)


def kernel_psf(
    kernels: np.ndarray,
    bounds: Box,
    *,
    step: float = 1.0,
    origin: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    interpolant: str = "Lanczos(7)",
    stamp_size: int | None = None,
) -> PiffWrapper:
    """Make a PSF that can be stored with a visit image of pixel kernels.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        One kernel of shape ``(k, k)``, or the coefficients of a polynomial in
        ``u = (x - origin[0]) / scale[0]`` and ``v = (y - origin[1]) /
        scale[1]``, shape ``(n, k, k)``, in the order 1, u, v, u**2, u*v,
        v**2, ...; ``k`` odd and ``n`` 1, 3, 6, 10, ...  A kernel's position is
        its middle pixel, which need not be its centroid.
    bounds : `lsst.images.Box`
        The pixels for which the PSF is valid.
    step : `float`, optional
        Size of a kernel's pixel in pixels of the image.
    origin, scale : `tuple` [`float`, `float`], optional
        Zero points and scales of x and y, pixels.
    interpolant : `str`, optional
        GalSim interpolant between the pixels of a kernel.
    stamp_size : `int`, optional
        Width of the images that the PSF draws, pixels, odd; that of the
        kernels if not given.

    Returns
    -------
    psf : `lsst.images.psfs.PiffWrapper`
        A Piff ``PixelGrid`` model with ``Mean`` or ``BasisPolynomial``
        interpolation.  It normalizes what it draws to a sum of 1.

    Raises
    ------
    ValueError
        Raised if the shape of the kernels is not as described.
    """
    import galsim
    import piff

    kernels = np.asarray(kernels, dtype=np.float64)
    if kernels.ndim == 2:
        kernels = kernels[np.newaxis]
    n_terms, size = kernels.shape[0], kernels.shape[-1]
    order = round((math.sqrt(8 * n_terms + 1) - 3) / 2)
    if kernels.shape[1:] != (size, size) or size % 2 == 0:
        raise ValueError(f"PSF kernels must be square with odd size, not {kernels.shape[1:]}.")
    if (order + 1) * (order + 2) // 2 != n_terms:
        raise ValueError(f"{n_terms} kernels are not the coefficients of a complete polynomial.")

    interp: piff.Interp
    if order == 0:
        interp = piff.Mean()
        interp.mean = kernels.ravel()
    else:
        interp = piff.BasisPolynomial(order=order, keys=("x", "y"))
        interp.q = _raw_coefficients(kernels, order, origin, scale).reshape(n_terms, size * size).T
    if stamp_size is None:
        stamp_size = math.ceil(size * step) | 1
    psf = piff.SimplePSF(piff.PixelGrid(scale=step, size=size, interp=interpolant), interp)
    # Piff would set these in a fit, and writes them all to a file.
    psf.wcs, psf.pointing, psf.stars = {0: galsim.PixelScale(1.0)}, None, []
    psf.chisq = psf.last_delta_chisq = 0.0
    psf.dof = psf.nremoved = psf.niter = 0
    return PiffWrapper(psf, bounds, stamp_size)


def polynomial_terms(order: int) -> list[tuple[int, int]]:
    """Return the powers of x and y in a polynomial, in this module's order.

    Parameters
    ----------
    order : `int`
        Highest total power.

    Returns
    -------
    powers : `list` [`tuple` [`int`, `int`]]
        Powers of x and y of each term: 1, x, y, x**2, x*y, y**2, ...
    """
    return [(total - j, j) for total in range(order + 1) for j in range(total + 1)]


def _raw_coefficients(
    kernels: np.ndarray, order: int, origin: tuple[float, float], scale: tuple[float, float]
) -> np.ndarray:
    """Expand a polynomial in scaled coordinates into one in pixels, in the
    order of Piff's terms (by power of x, then of y).
    """
    index = {powers: n for n, powers in enumerate(sorted(polynomial_terms(order)))}
    result = np.zeros_like(kernels)
    for kernel, (i, j) in zip(kernels, polynomial_terms(order), strict=True):
        for a, b in itertools.product(range(i + 1), range(j + 1)):
            factor = float(math.comb(i, a) * math.comb(j, b))
            factor *= (-origin[0]) ** (i - a) * (-origin[1]) ** (j - b) / (scale[0] ** i * scale[1] ** j)
            result[index[a, b]] += factor * kernel
    return result
