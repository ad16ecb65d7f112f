"""Files of the field, read and written.

All images are handed over in MRC order: row 0 is the bottom of the picture as people see it.
TIFF (movies, images and gain references), PNG, JPEG and DigitalMicrograph files have row 0 at
the top and are flipped in y on reading; MRC, EER and ``.gain`` are not. That is what RELION
does, so that shifts, angles and coordinates mean the same here and there.
"""

from vitriflow.formats.completeness import Completeness, State
from vitriflow.formats.ctffind import Avrot, read_avrot, read_ctf_results
from vitriflow.formats.defects import read_defects
from vitriflow.formats.describe import Report, describe
from vitriflow.formats.dm import read_dm
from vitriflow.formats.eer_write import EerWriter
from vitriflow.formats.epu import read_epu_xml
from vitriflow.formats.exposure import ExposureMetadata, names_from_path
from vitriflow.formats.gain import Gain, Orientation, read_gain
from vitriflow.formats.mdoc import Mdoc, read_mdoc
from vitriflow.formats.movie import Movie
from vitriflow.formats.mrc_write import MrcWriter, write_mrc
from vitriflow.formats.opening import Image, check_complete, open_image, open_movie, read_image
from vitriflow.formats.particles import (
    ParticleSet,
    read_coordinates,
    read_particles,
    read_stack,
    write_coordinates,
    write_particles,
    write_stack,
)
from vitriflow.formats.star import read_star, write_star
from vitriflow.formats.tiff_write import TiffWriter, write_tiff_movie

__all__ = [
    "Avrot",
    "Completeness",
    "EerWriter",
    "ExposureMetadata",
    "Gain",
    "Image",
    "Mdoc",
    "Movie",
    "MrcWriter",
    "Orientation",
    "ParticleSet",
    "Report",
    "State",
    "TiffWriter",
    "check_complete",
    "describe",
    "names_from_path",
    "open_image",
    "open_movie",
    "read_avrot",
    "read_coordinates",
    "read_ctf_results",
    "read_defects",
    "read_dm",
    "read_epu_xml",
    "read_gain",
    "read_image",
    "read_mdoc",
    "read_particles",
    "read_stack",
    "read_star",
    "write_coordinates",
    "write_mrc",
    "write_particles",
    "write_stack",
    "write_star",
    "write_tiff_movie",
]
