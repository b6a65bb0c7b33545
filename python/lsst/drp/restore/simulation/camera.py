# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The simulated camera, and the pointing and conditions of each visit."""

from __future__ import annotations

__all__ = ("SimulatedCamera", "SimulatedVisit")

import dataclasses

import astropy.time
import astropy.units as u
import astropy.wcs
import numpy as np
from astropy.coordinates import SkyCoord

from lsst.images import Box

from .config import AB_ZERO_POINT, SimulationConfig, Stream


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedVisit:
    """Pointing and conditions of a visit.

    Parameters
    ----------
    visit : `int`
        ID of the visit.
    begin : `astropy.time.Time`
        Start of the exposure.
    boresight : `astropy.coordinates.SkyCoord`
        Position of the optical axis on the sky.
    rotation : `float`
        Angle from north through east to the camera's y axis, degrees.
    seeing : `float`
        FWHM of the PSF at the optical axis, without the pixel response,
        arcsec.
    sky_level : `float`
        Brightness of the sky before sky subtraction, nJy per pixel.
    gain : `float`
        Electrons per nJy.
    calibration : `float`
        Ratio of measured to true flux.
    """

    visit: int
    begin: astropy.time.Time
    boresight: SkyCoord
    rotation: float
    seeing: float
    sky_level: float
    gain: float
    calibration: float

    @property
    def sky_sigma(self) -> float:
        """Noise of an empty pixel, nJy (`float`)."""
        return float(np.sqrt(self.sky_level / self.gain))

    @classmethod
    def draw(cls, config: SimulationConfig, visit: int, center: SkyCoord) -> SimulatedVisit:
        """Draw the pointing and conditions of a visit at random.

        Parameters
        ----------
        config : `SimulationConfig`
            Options.
        visit : `int`
            ID of the visit.
        center : `astropy.coordinates.SkyCoord`
            Center of the field.

        Returns
        -------
        simulated : `SimulatedVisit`
            The visit.
        """
        rng = config.generator(Stream.VISIT, visit)
        distance = config.dither_radius * np.sqrt(rng.random())
        angle = rng.uniform(0, 360)
        # The gain follows from the depth at 0.7 arcsec, where the noise is that
        # of sky photons: the effective area of a Gaussian PSF is
        # 4 pi sigma**2 = 2.266 FWHM**2.
        pixel_area = config.pixel_scale**2
        sky_level = 10 ** (0.4 * (AB_ZERO_POINT - config.sky_brightness)) * pixel_area
        sigma = 10 ** (0.4 * (AB_ZERO_POINT - config.depth)) / 5 / np.sqrt(2.266 * 0.7**2 / pixel_area)
        gain = sky_level / sigma**2
        return cls(
            visit=visit,
            begin=astropy.time.Time(config.begin, scale="tai") + (visit - config.first_visit) * u.day,
            boresight=center.directional_offset_by(angle * u.deg, distance * u.arcsec),
            rotation=float(rng.uniform(*config.rotations)),
            seeing=float(rng.uniform(*config.seeing_range)),
            sky_level=float(sky_level * 10 ** (0.4 * config.sky_scatter * rng.standard_normal())),
            gain=float(gain * 10 ** (0.4 * config.zero_point_scatter * rng.standard_normal())),
            calibration=float(1 + config.calibration_error * rng.standard_normal()),
        )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedCamera:
    """A rectangle of square detectors behind a distorting telescope.

    Parameters
    ----------
    config : `SimulationConfig`
        Options.
    size : `int`
        Height and width of a detector, pixels.

    Notes
    -----
    Each detector is shifted by about a pixel and rotated by about 0.1 degrees
    from its nominal position, and has distortions of its own.  These are the
    same in all visits.
    """

    config: SimulationConfig
    size: int

    @classmethod
    def fitting(cls, config: SimulationConfig, patch: Box, patch_scale: float) -> SimulatedCamera:
        """Make the camera of a configuration.

        Parameters
        ----------
        config : `SimulationConfig`
            Options.
        patch : `lsst.images.Box`
            Outer bounding box of the patch.
        patch_scale : `float`
            Size of the patch's pixels, arcsec.

        Returns
        -------
        camera : `SimulatedCamera`
            The camera.  Without ``detector_size``, its shorter side is 1.25
            times as long as the patch's longer side.
        """
        size = config.detector_size
        if size is None:
            width = 1.25 * max(patch.shape) * patch_scale / config.pixel_scale
            n = min(config.detectors)
            size = round((width - (n - 1) * config.detector_gap) / n)
        return cls(config=config, size=size)

    @property
    def detectors(self) -> dict[int, str]:
        """Full name of each detector by its ID (`dict`)."""
        columns, rows = self.config.detectors
        return {j * columns + i: f"S{j}{i}" for j in range(rows) for i in range(columns)}

    @property
    def bbox(self) -> Box:
        """The pixels of a detector (`lsst.images.Box`)."""
        return Box.factory[0 : self.size, 0 : self.size]

    @property
    def half_diagonal(self) -> float:
        """Distance of the camera's corners from the optical axis, pixels
        (`float`).
        """
        pitch = self.size + self.config.detector_gap
        return float(np.hypot(*(np.array(self.config.detectors) * pitch)) / 2)

    @property
    def field_radius(self) -> float:
        """Radius of a circle that contains the camera in all visits, arcsec
        (`float`).
        """
        distorted = self.half_diagonal * (1 + 1.5 * abs(self.config.distortion))
        return distorted * self.config.pixel_scale + self.config.dither_radius

    def focal_plane(self, detector: int) -> tuple[np.ndarray, np.ndarray]:
        """Locate a detector.

        Parameters
        ----------
        detector : `int`
            ID of the detector.

        Returns
        -------
        axis : `numpy.ndarray`
            Pixel ``(x, y)`` of the optical axis in the detector's own
            coordinates, 0-based.
        turn : `numpy.ndarray`
            Rotation matrix from the detector's axes to the camera's.
        """
        rng = self.config.generator(Stream.DETECTOR, detector)
        columns, rows = self.config.detectors
        pitch = self.size + self.config.detector_gap
        row, column = divmod(detector, columns)
        where = np.array([column - (columns - 1) / 2, row - (rows - 1) / 2]) * pitch
        where += rng.normal(0, 1.0, 2)
        angle = np.deg2rad(rng.normal(0, 0.1))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return (self.size - 1) / 2 - turn.T @ where, turn

    def wcs(self, visit: SimulatedVisit, detector: int) -> astropy.wcs.WCS:
        """Make the WCS of a detector in a visit.

        Parameters
        ----------
        visit : `SimulatedVisit`
            The visit.
        detector : `int`
            ID of the detector.

        Returns
        -------
        wcs : `astropy.wcs.WCS`
            TAN-SIP WCS about the optical axis.  Its third order is the radial
            distortion of the telescope, its second order that of the detector.
        """
        config = self.config
        axis, turn = self.focal_plane(detector)
        crpix = axis + 1
        radial = config.distortion / self.half_diagonal**2
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = radial
        rng = config.generator(Stream.DETECTOR, detector, 1)
        second = 0.1 * config.distortion / self.half_diagonal * rng.standard_normal((2, 3))
        (a[2, 0], a[1, 1], a[0, 2]), (b[2, 0], b[1, 1], b[0, 2]) = second
        angle = np.deg2rad(visit.rotation)
        # East is to the left when north is up.
        to_sky = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        wcs = astropy.wcs.WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.crval = [visit.boresight.ra.deg, visit.boresight.dec.deg]
        wcs.wcs.crpix = crpix
        wcs.wcs.cd = config.pixel_scale / 3600 * to_sky @ turn
        wcs.sip = astropy.wcs.Sip(a, b, None, None, crpix)
        wcs.wcs.set()
        return wcs
