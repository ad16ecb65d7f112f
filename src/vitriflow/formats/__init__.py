"""Files of the field, read and written.

All images are handed over in MRC order: row 0 is the bottom of the picture as people see it.
TIFF (movies, images and gain references), PNG, JPEG and DigitalMicrograph files have row 0 at
the top and are flipped in y on reading; MRC, EER and ``.gain`` are not. That is what RELION
does, so that shifts, angles and coordinates mean the same here and there.
"""

from vitriflow.formats.completeness import Completeness, State
from vitriflow.formats.eer_write import EerWriter
from vitriflow.formats.movie import Movie
from vitriflow.formats.mrc_write import MrcWriter, write_mrc
from vitriflow.formats.opening import Image, check_complete, open_image, open_movie, read_image
from vitriflow.formats.tiff_write import TiffWriter, write_tiff_movie

__all__ = [
    "Completeness",
    "EerWriter",
    "Image",
    "Movie",
    "MrcWriter",
    "State",
    "TiffWriter",
    "check_complete",
    "open_image",
    "open_movie",
    "read_image",
    "write_mrc",
    "write_tiff_movie",
]
