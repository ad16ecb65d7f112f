"""EPU: grid squares, foil holes, and an XML in SI units beside each movie."""

import uuid
from datetime import timedelta
from pathlib import Path
from xml.sax.saxutils import escape

from vitriflow.simulate.layouts.base import Layout
from vitriflow.simulate.plan import Exposure, FileFormat
from vitriflow.units import ANGSTROM_PER_M

_POSITIONS_PER_SQUARE = 6
_FIRST_SQUARE, _FIRST_HOLE, _FIRST_AREA = 5324661, 5330585, 5338216
_SHARED = "http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
_SCHEMA = "http://www.w3.org/2001/XMLSchema"
_DRAWING = "http://schemas.datacontract.org/2004/07/System.Drawing"
_TYPES = "http://schemas.datacontract.org/2004/07/Fei.Types"
_RAW_FRAMES_PER_FRACTION = 10


class EpuLayout(Layout):
    """``Images-Disc1/GridSquare_N/Data/FoilHole_H_Data_A_B_date_time_Fractions.*`` and its XML."""

    @property
    def gain_path(self) -> Path:
        """In the session's own folder."""
        return self.root / f"GainReference{self.gain_suffix}"

    def _square(self, exposure: Exposure, disc: int = 1) -> Path:
        number = _FIRST_SQUARE + (exposure.position - 1) // _POSITIONS_PER_SQUARE
        return self.root / f"Images-Disc{disc}" / f"GridSquare_{number}"

    def _stem(self, exposure: Exposure) -> str:
        hole = _FIRST_HOLE + exposure.number
        when = exposure.acquired_at.strftime("%Y%m%d_%H%M%S")
        area = _FIRST_AREA + exposure.hole
        return f"FoilHole_{hole}_Data_{area}_{area + 2}_{when}"

    def movie_path(self, exposure: Exposure) -> Path:
        """``_Fractions.mrc``, ``_Fractions.tiff`` or ``_EER.eer``."""
        return self._square(exposure) / "Data" / (self._stem(exposure) + self.ending("_Fractions"))

    def duplicate_path(self, exposure: Exposure) -> Path:
        """The same name on a second disc."""
        return self._square(exposure, disc=2) / "Data" / self.movie_path(exposure).name

    def skeleton(self) -> dict[Path, bytes]:
        """The session's own record and a small atlas."""
        name = escape(self.session.name)
        software = "<ApplicationSoftware>EPU</ApplicationSoftware>"
        return {
            self.root / "EpuSession.dm": f'<EpuSessionXml xmlns="{_SHARED}"><Name>{name}</Name>{software}'
            "</EpuSessionXml>".encode(),
            self.root / "Atlas" / "Atlas_1.xml": f'<MicroscopeImage xmlns="{_SHARED}"><name>Atlas</name>'
            "</MicroscopeImage>".encode(),
        }

    def beside(self, exposure: Exposure, jpeg: bytes) -> dict[Path, bytes]:
        """The XML of the exposure, the camera's own XML (MRC only), a picture, and the square's XML once."""
        data = self._square(exposure) / "Data"
        stem = self._stem(exposure)
        files = {data / f"{stem}.xml": microscope_xml(self.session.format, exposure).encode()}
        if self.session.format is FileFormat.MRC:
            files[data / f"{stem}_Fractions.xml"] = camera_xml(exposure).encode()
        files[data / f"{stem}.jpg"] = jpeg
        square = self._square(exposure) / f"{self._square(exposure).name}.xml"
        if not square.exists():
            files[square] = (
                f'<MicroscopeImage xmlns="{_SHARED}"><name>GridSquare</name></MicroscopeImage>'.encode()
            )
        return files


def _entry(key: str, kind: str, value: str) -> str:
    return (
        f"<a:KeyValueOfstringanyType><a:Key>{key}</a:Key>"
        f'<a:Value i:type="b:{kind}" xmlns:b="{_SCHEMA}">{value}</a:Value></a:KeyValueOfstringanyType>'
    )


def _pair(name: str, x: float, y: float) -> str:
    return f'<{name} xmlns:a="{_TYPES}"><a:_x>{x!r}</a:_x><a:_y>{y!r}</a:_y></{name}>'


def _length(name: str, metres: float) -> str:
    return f"<{name}><numericValue>{metres!r}</numericValue></{name}>"


def _planned_fractions(n_fractions: int) -> str:
    """Fractions as EPU plans them: first and last raw frame of each, counted from 1."""
    parts = []
    for index in range(n_fractions):
        first = index * _RAW_FRAMES_PER_FRACTION + 1
        parts.append(
            '<a:anyType i:type="b:DoseFractionDefinition">'
            f"<b:EndFrameNumber>{first + _RAW_FRAMES_PER_FRACTION - 1}</b:EndFrameNumber>"
            f"<b:StartFrameNumber>{first}</b:StartFrameNumber></a:anyType>"
        )
    space = "http://schemas.datacontract.org/2004/07/Fei.Applications.Common.Omp.Interface"
    return (
        "<a:KeyValueOfstringanyType><a:Key>FractionationSettings</a:Key>"
        f'<a:Value i:type="b:VaridistantFractionation" xmlns:b="{space}">'
        f"<b:DoseFractions>{''.join(parts)}</b:DoseFractions></a:Value></a:KeyValueOfstringanyType>"
    )


def microscope_xml(kind: FileFormat, exposure: Exposure) -> str:
    """The XML that EPU writes beside an exposure, with the fields that real ones carry, in SI units."""
    movie = exposure.movie
    pixel_m = movie.pixel_size_A / ANGSTROM_PER_M
    dose = movie.total_dose_e_per_A2
    seconds = 0.05 * movie.n_frames
    detector = "EF-Falcon" if kind is FileFormat.EER else "BM-Falcon"
    height, width = movie.shape
    number = uuid.uuid5(uuid.NAMESPACE_OID, f"{movie.seed}-{exposure.number}")
    custom = (
        _entry("DoseOnCamera", "double", repr(dose * movie.pixel_size_A**2))
        + _entry("Dose", "double", repr(dose * ANGSTROM_PER_M**2))
        + _entry("PhasePlateUsed", "boolean", str(movie.phase_shift_deg > 0).lower())
        + _entry("BinaryResult.Detector", "string", detector)
        + _entry("AppliedDefocus", "double", repr(-exposure.nominal_defocus_A / ANGSTROM_PER_M))
    )
    camera = (
        (_planned_fractions(movie.n_frames) if kind is not FileFormat.EER else "")
        + _entry("ElectronCountingEnabled", "boolean", "true")
        + _entry("SuperResolutionFactor", "int", "1")
    )
    area = f"<a:height>{height}</a:height><a:width>{width}</a:width><a:x>0</a:x><a:y>0</a:y>"
    x, y, z = (um * 1e-6 for um in exposure.stage_um)
    tilt = 0.0174532925 * exposure.tilt_deg
    defocus_m = -0.5 * (movie.defocus_u_A + movie.defocus_v_A) / ANGSTROM_PER_M
    # Rough, but falls with the pixel as it does on a microscope
    magnification = round(84000 / movie.pixel_size_A / 1000) * 1000 or 1000
    return (
        f'<MicroscopeImage xmlns="{_SHARED}" xmlns:i="{_INSTANCE}"><name>Empty</name>'
        f"<uniqueID>{number}</uniqueID>"
        f'<CustomData xmlns:a="{_ARRAYS}">{custom}</CustomData><IntensityScale i:nil="true"/>'
        f"<SpatialScale><offset>{_length('x', 0.0)}{_length('y', 0.0)}</offset>"
        f"<pixelSize>{_length('x', pixel_m)}{_length('y', pixel_m)}</pixelSize></SpatialScale>"
        "<microscopeData><acquisition>"
        f"<acquisitionDateTime>{exposure.acquired_at.isoformat()}</acquisitionDateTime>"
        f'<camera><Binning xmlns:a="{_DRAWING}"><a:x>1</a:x><a:y>1</a:y></Binning>'
        f'<CameraSpecificInput xmlns:a="{_ARRAYS}">{camera}</CameraSpecificInput>'
        f"<ExposureTime>{seconds!r}</ExposureTime><Name>{detector}</Name>"
        f'<ReadoutArea xmlns:a="{_DRAWING}">{area}</ReadoutArea></camera></acquisition>'
        "<core><ApplicationSoftware>EPU</ApplicationSoftware>"
        "<ApplicationSoftwareVersion>3.0.0.4164REL</ApplicationSoftwareVersion></core>"
        f"<gun><AccelerationVoltage>{movie.voltage_kV * 1e3:.0f}</AccelerationVoltage></gun>"
        "<instrument><InstrumentID>0</InstrumentID><InstrumentModel>VITRIFLOW-SIMULATOR</InstrumentModel>"
        "</instrument><optics>"
        f"{_pair('BeamShift', *exposure.beam_shift)}{_pair('BeamTilt', 0.0, 0.0)}"
        f"<Defocus>{defocus_m!r}</Defocus>"
        f'<EFTEMOn>false</EFTEMOn><EnergyFilter i:nil="true"/>{_pair("ImageShift", 0.0, 0.0)}'
        f"<TemMagnification><NominalMagnification>{magnification}</NominalMagnification></TemMagnification>"
        "</optics><stage><Holder>Unspecified</Holder><Position>"
        f"<A>{tilt!r}</A><B>0</B><X>{x!r}</X><Y>{y!r}</Y><Z>{z!r}</Z></Position></stage>"
        "</microscopeData></MicroscopeImage>"
    )


def camera_xml(exposure: Exposure) -> str:
    """The ``_Fractions.xml`` that a Falcon camera writes: what was really recorded."""
    movie = exposure.movie
    height, width = movie.shape
    kind = {"int16": "Signed 16 bits", "uint16": "Unsigned 16 bits", "float32": "Float 32 bits"}
    seconds = 0.05
    parts = []
    for index in range(movie.n_frames):
        when = exposure.acquired_at + timedelta(seconds=seconds * index)
        parts.append(
            f"<Fraction><Index>{index}</Index><StartFrame>{index * _RAW_FRAMES_PER_FRACTION}</StartFrame>"
            f"<NumberOfFrames>{_RAW_FRAMES_PER_FRACTION}</NumberOfFrames>"
            f"<SampleType>DoseFraction</SampleType><DateTimeWithTimeZone>{when.isoformat()}"
            f"</DateTimeWithTimeZone><ExposureTime>{seconds}</ExposureTime>"
            f"<MeanPixelValue>{movie.dose_per_pixel!r}</MeanPixelValue><Checksum>Valid</Checksum></Fraction>"
        )
    when = exposure.acquired_at
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<Acquisition><Info><FileVersion>3.0.2.5809</FileVersion>'
        f"<Detector>Falcon-3</Detector><Time>{when:%Y/%m/%d - %H:%M:%S}</Time>"
        f"<DateTimeWithTimeZone>{when.isoformat()}</DateTimeWithTimeZone>"
        f"<ExpectedNumberOfFractions>{movie.n_frames}</ExpectedNumberOfFractions>"
        f"<RecordedNumberOfFractions>{movie.n_frames}</RecordedNumberOfFractions>"
        f"<Format>{kind.get(movie.dtype, '8 bits')}</Format><RegionOfInterest><Top>0</Top><Left>0</Left>"
        f"<Width>{width}</Width><Height>{height}</Height></RegionOfInterest><Binning>1</Binning>"
        f"<GainCorrection>{'On' if movie.gain_applied else 'Off'}</GainCorrection>"
        f"<ElectronCounting>On</ElectronCounting></Info><Fractions>{''.join(parts)}</Fractions></Acquisition>"
    )
