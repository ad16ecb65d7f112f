"""Tomo 5: movies named by position, order and tilt, and one mdoc a position."""

from pathlib import Path

from vitriflow.simulate.layouts.base import Layout
from vitriflow.simulate.plan import Exposure
from vitriflow.units import ANGSTROM_PER_UM

TILT_AXIS_DEG = -84.23


class Tomo5Layout(Layout):
    """``Position_1_001_-10.00_20231020_234209_EER.eer`` with ``Position_1.mdoc``."""

    @property
    def gain_path(self) -> Path:
        """Beside the movies."""
        return self.root / f"GainReference{self.gain_suffix}"

    def movie_path(self, exposure: Exposure) -> Path:
        """Order counts from 1 and has three figures, the tilt two decimals."""
        when = exposure.acquired_at.strftime("%Y%m%d_%H%M%S")
        stem = f"Position_{exposure.position}_{exposure.order:03d}_{exposure.tilt_deg:.2f}_{when}"
        return self.root / (stem + self.ending("_Fractions"))

    def skeleton(self) -> dict[Path, bytes]:
        """Nothing before the first movie."""
        return {}

    def beside(self, exposure: Exposure, jpeg: bytes) -> dict[Path, bytes]:
        """The position's mdoc, longer by one section."""
        path = self.root / f"Position_{exposure.position}.mdoc"
        movie = exposure.movie
        height, width = movie.shape
        if exposure.order == 1 or not path.exists():
            when = f"{exposure.acquired_at:%y-%b-%d  %H:%M:%S}"
            start = (
                f"DataMode = 6\nImageSize = {width} {height} \nImageFile = Position_{exposure.position}.mrc\n"
                f"PixelSpacing = {movie.pixel_size_A:.5g}\nVoltage = {movie.voltage_kV:.2f}\n\n"
                f"[T = Tomography: VITRIFLOW-SIMULATOR    {when}]\n\n"
                # real files carry the axis turned by 90 degrees here
                f"[T =   TiltAxisAngle = {TILT_AXIS_DEG - 90.0:.2f}  Binning = 1  SpotSize = 7]\n\n"
            )
        else:
            start = path.read_text(encoding="utf-8")
        return {path: (start + self._section(exposure)).encode()}

    def _section(self, exposure: Exposure) -> str:
        movie = exposure.movie
        x, y, z = exposure.stage_um
        dose = movie.total_dose_e_per_A2
        defocus_um = -0.5 * (movie.defocus_u_A + movie.defocus_v_A) / ANGSTROM_PER_UM
        fields = {
            "TiltAngle": f"{exposure.tilt_deg:.2f}",
            "StagePosition": f"{x:.2f} {y:.2f} ",
            "StageZ": f"{z:.2f}",
            "Magnification": f"{round(84000 / movie.pixel_size_A / 1000) * 1000 or 1000}",
            "Intensity": "0.00",
            "ExposureDose": f"{dose:.2f}",
            "PixelSpacing": f"{movie.pixel_size_A:.5g}",
            "SpotSize": "7",
            "Defocus": f"{defocus_um:.2f}",
            "ImageShift": f"{exposure.beam_shift[0]:.2f} {exposure.beam_shift[1]:.2f} ",
            "RotationAngle": f"{TILT_AXIS_DEG:.2f}",
            "ExposureTime": f"{0.05 * movie.n_frames:.2f}",
            "Binning": "1",
            "MagIndex": "27",
            "TargetDefocus": f"{-exposure.nominal_defocus_A / ANGSTROM_PER_UM:.2f}",
            "PriorRecordDose": f"{exposure.dose_before_e_per_A2:.2f}",
            "SubFramePath": f"data/tilts/frames//{self.movie_path(exposure).name}",
            # as real files do, whatever the movie holds
            "NumSubFrames": "1",
            "FrameDosesAndNumber": f"{dose:.2f} 1  ",
            "DateTime": f"{exposure.acquired_at:%y-%b-%d  %H:%M:%S}",
            "FilterSlitAndLoss": "10.00 0.00 ",
        }
        text = "".join(f"{key} = {value}\n" for key, value in fields.items())
        return f"[ZValue = {exposure.order - 1}]\n{text}\n"
